# One line per target; `make` alone prints this help. Every target sets up what it needs.
PROFILE    ?= heterogeneous
EXPERIMENT ?= digits
WHAT       ?= table3
PYTHON     ?= python3
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

FEDBENCH := .venv/bin/fedbench
DATA_OPT  = $(if $(DATA),--data $(DATA))
RUN_OPTS  = $(DATA_OPT) $(if $(DETACH),--detach) $(foreach s,$(SET),--set $(s))

.DEFAULT_GOAL := help
.PHONY: help up run sweep status top logs down join plan data devices report fidelity reproduce calibrate chaos test test-unit test-flower bench bench-full check format clean

help: ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

up: .venv/host ## bring a federation up and run: PROFILE=heterogeneous EXPERIMENT=digits [DATA=folder] [DETACH=1] [SET="rounds=5"]
	@$(FEDBENCH) up $(PROFILE) --experiment $(EXPERIMENT) $(RUN_OPTS)

run: $(if $(filter in-process,$(ENGINE)),.venv/node,.venv/host) ## another run on the federation that is up, or without any: EXPERIMENT=digits [ENGINE=in-process PROFILE=heterogeneous] [RESUME=run]
	@$(FEDBENCH) run $(if $(RESUME),--resume $(RESUME),$(EXPERIMENT) $(if $(ENGINE),--engine $(ENGINE) --profile $(PROFILE))) $(RUN_OPTS)

sweep: $(if $(filter in-process,$(ENGINE)),.venv/node,.venv/host) ## a grid of experiments, and one table: SWEEP=partitions [ENGINE=in-process] [DATA=folder] [SET="rounds=5"]
	@$(FEDBENCH) sweep $(SWEEP) $(if $(ENGINE),--engine $(ENGINE)) $(DATA_OPT) $(foreach s,$(SET),--set $(s))

status: .venv/host ## what is up, and where the dashboards are
	@$(FEDBENCH) status

top: .venv/host ## watch all devices live, ? shows keys: [PROMETHEUS=http://localhost:9090], of a tunnel to another host
	@$(FEDBENCH) top $(if $(PROMETHEUS),--prometheus $(PROMETHEUS))

logs: .venv/host ## what server and clients logged: [CLIENT=laptop] [SINCE=5m] [RUN=run] [LEVEL=debug] [FOLLOW=1]
	@$(FEDBENCH) logs $(CLIENT) $(if $(SINCE),--since $(SINCE)) $(if $(RUN),--run $(RUN)) $(if $(LEVEL),--level $(LEVEL)) $(if $(FOLLOW),--follow)

down: .venv/host ## take the federation down; runs are kept
	@$(FEDBENCH) down

join: .venv/host ## join from this computer: SERVER=host:port DEVICE=legacy-pc [NAME=name] [CA=ca.pem] [DATA=folder] [METRICS_PORT=9101]
	@$(FEDBENCH) join --server $(SERVER) --device $(DEVICE) $(if $(NAME),--name $(NAME)) $(if $(CA),--ca $(CA)) $(DATA_OPT) $(if $(METRICS_PORT),--metrics-port $(METRICS_PORT))

fidelity: .venv/host ## emulated epoch times against the real ones: PROFILE=table2 [SHORT=1]
	@$(FEDBENCH) fidelity $(PROFILE) $(if $(SHORT),--short) $(foreach s,$(SET),--set $(s))

chaos: .venv/host ## break a small federation in every way, and check what its runs make of it: [SCENARIO="client-kill disk-full"]
	@$(FEDBENCH) chaos $(SCENARIO)

reproduce: .venv/node ## the paper's tables, with ours beside: WHAT=table3 [ENGINE=in-process] [SCALE=0.1] [ROUNDS=2] [TUNED=1] [DATA=folder] [JSON=file]
	@$(FEDBENCH) reproduce $(WHAT) $(if $(ENGINE),--engine $(ENGINE)) $(if $(SCALE),--scale $(SCALE)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(TUNED),--tuned) $(if $(JSON),--json $(JSON)) $(DATA_OPT)

plan: .venv/host ## print the compose project that `up` would start
	@$(FEDBENCH) plan $(PROFILE) $(foreach s,$(SET),--set $(s))

data: .venv/host ## partition the data and show who holds what: [PICTURE=file.svg] [SET="data.partition=dirichlet"]
	@$(FEDBENCH) data $(PROFILE) --experiment $(EXPERIMENT) $(DATA_OPT) $(if $(PICTURE),--picture $(PICTURE)) $(foreach s,$(SET),--set $(s))

devices: .venv/host ## the devices that can be emulated; of one, where its figures were read: [DEVICE=raspberry-pi-4]
	@$(FEDBENCH) devices $(DEVICE)

report: .venv/host ## report runs, the newest by default, as Markdown or into a file: [RUN="run run"] [OUTPUT=report.html]
	@$(FEDBENCH) report $(RUN) $(if $(OUTPUT),--output $(OUTPUT))

calibrate: .venv/host ## measure how fast this host trains each model: [MODEL=mobilenet_v2] [FRESH=1]
	@$(FEDBENCH) calibrate $(foreach m,$(MODEL),--model $(m)) $(if $(FRESH),--fresh)

# One more than there are cores: some tests wait. A file's tests share what they set up; files are
# begun in the order of tests/conftest.py.
PYTEST_PARALLEL = .venv/bin/python -m pytest --numprocesses $$(($$(nproc) + 1)) --dist loadfile --no-loadscope-reorder

# Tests with Docker measure, so nothing runs beside them; they share a federation, so nothing splits them.
test: check ## lint, type-check and run all tests; end-to-end ones too where Docker can be had
	$(PYTEST_PARALLEL) -m "not docker"
	.venv/bin/python -m pytest -m docker

test-unit: .venv/dev ## run the unit tests, on all cores: none that needs Docker or trains in processes of its own
	$(PYTEST_PARALLEL) -m "not docker and not processes"

test-flower: .venv/dev ## test what is used of Flower with each flwr of a list, and say what moved
	@.venv/bin/python tests/flower/flower_versions.py

bench: .venv/dev ## measure against what one would run instead: [BENCH=train]
	@.venv/bin/python tests/bench $(BENCH)

bench-full: .venv/dev ## the same and the long parts: curves, limits, numerics
	@.venv/bin/python tests/bench --full

check: .venv/dev ## lint, type-check, and see that what is imported is declared
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/deptry fedbench

format: .venv/dev ## format the code
	.venv/bin/ruff check --fix . ; .venv/bin/ruff format .

clean: ## remove virtual environment and caches; runs and data are kept
	rm -rf .venv .venv-flwr .mypy_cache .pytest_cache .ruff_cache .hypothesis fedbench.egg-info

.venv/host: pyproject.toml
	@echo "setting up .venv with what the host needs (a minute)"
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install -qq --no-compile --editable .
	@touch $@

# PyTorch without CUDA, where its index can be reached; elsewhere pip takes what it is configured for.
# A GPU needs CUDA's: make reproduce TORCH_INDEX=https://download.pytorch.org/whl/cu128
NODE_INDEX = $$(curl -sfIm 5 $(TORCH_INDEX)/ >/dev/null && echo --extra-index-url $(TORCH_INDEX))

.venv/node: pyproject.toml
	@echo "setting up .venv with what training on this host needs (a minute or two)"
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install -qq --no-compile --editable '.[node]' $(NODE_INDEX)
	@touch $@ .venv/host

.venv/dev: pyproject.toml
	@echo "setting up .venv with what the tests need (a minute or two)"
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install -qq --no-compile --editable '.[node,dev]' $(NODE_INDEX)
	@touch $@ .venv/node .venv/host
