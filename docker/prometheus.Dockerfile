# Stand-in for prom/prometheus:v2.53.3 where no registry can be reached: the same version out of
# Debian 13, whose package runs on Debian 12, with the official image's paths, user and defaults.
FROM debian:bookworm-slim
RUN site=$(sed -n 's/^URIs: //p' /etc/apt/sources.list.d/debian.sources | head -n 1) \
    && echo "deb $site trixie main" > /etc/apt/sources.list.d/trixie.list \
    && printf 'Package: *\nPin: release n=trixie\nPin-Priority: -1\n\nPackage: prometheus promtool\nPin: release n=trixie\nPin-Priority: 990\n' \
        > /etc/apt/preferences.d/trixie \
    && apt-get update -q \
    && apt-get install -q -y --no-install-recommends prometheus promtool \
    && rm -rf /var/lib/apt/lists/* /var/lib/prometheus /usr/share/javascript/moment-timezone/data \
    && mkdir /prometheus \
    && chown nobody:nogroup /prometheus
USER nobody
WORKDIR /prometheus
VOLUME ["/prometheus"]
EXPOSE 9090
ENTRYPOINT ["/bin/prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
