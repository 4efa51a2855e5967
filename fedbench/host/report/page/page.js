"use strict";
// Draws every chart in the colours of the page, and again when these change.

const charts = JSON.parse(document.getElementById("charts").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const config = {
  responsive: true,
  displaylogo: false,
  displayModeBar: window.matchMedia("(hover: hover)").matches ? "hover" : false,
  // Named one by one: among the others is one that sends the chart away.
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
};

// "@ink" and its like, wherever they are, become the page's colours.
function painted(value, colours) {
  if (typeof value === "string" && value.startsWith("@")) {
    return colours.getPropertyValue("--" + value.slice(1)).trim();
  }
  if (Array.isArray(value)) return value.map((one) => painted(one, colours));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, painted(one, colours)]));
}

function axes(layout) {
  const narrow = document.body.clientWidth < 560;
  const common = {
    automargin: true, gridcolor: "@grid", linecolor: "@grid", zeroline: false,
    title: { font: { size: 13, color: "@muted" } }, tickfont: { size: narrow ? 11 : 12 },
  };
  const found = { xaxis: {}, yaxis: {} };
  for (const [key, axis] of Object.entries({ ...found, ...layout })) {
    if (!/^[xy]axis\d*$/.test(key)) continue;
    found[key] = { ...common, ...axis, title: { ...common.title, ...axis.title } };
  }
  return found;
}

function themed(layout) {
  return {
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: "@ink" },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 12, r: 16, t: 16, b: 12 },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    hoverlabel: { bgcolor: "@surface", bordercolor: "@grid", font: { color: "@ink" } },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: "@muted", activecolor: "@ink" },
    ...layout,
    ...axes(layout),
  };
}

function draw() {
  const colours = getComputedStyle(document.documentElement);
  for (const chart of charts) {
    const element = document.getElementById(chart.id);
    Plotly.react(element, painted(chart.traces, colours), painted(themed(chart.layout), colours), config);
  }
}

draw();
dark.addEventListener("change", draw);
window.addEventListener("beforeprint", draw);
window.addEventListener("afterprint", draw);
