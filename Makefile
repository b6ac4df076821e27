# `make demo` and `make test` set themselves up, in .venv in this folder. Nothing here needs a GPU or a display.
BIN := .venv/bin
export PYTHONUNBUFFERED := 1

DEMO_SECONDS ?= 20
DEMO_SEED ?= 1

.PHONY: help demo test check lint audit bench docs weights policy setup setup-demo clean

help:
	@echo "make demo     drive $(DEMO_SECONDS) s through a generated world with the shipped weights; writes out/demo/"
	@echo "make test     all tests"
	@echo "make check    the essential ones, in a minute and a half"
	@echo "make lint     ruff check, ruff format --check and mypy"
	@echo "make audit    known vulnerabilities of the pinned dependencies, where a database can be reached"
	@echo "make bench    frames per second of the world; writes out/bench.json"
	@echo "make docs     the documentation as pages, to be opened without a network: out/site/index.html"
	@echo "make weights  train weights from nothing (about five hours of one core; DEVICE=cuda: 25 minutes of a GPU)"
	@echo "make policy   train the policy ppo from nothing in the generated world (about an hour and a half of one core)"
	@echo "make setup    what the others do first: .venv with everything in it"
	@echo "make clean    remove .venv, out/ and caches"

setup:
	@scripts/setup.sh dev

setup-demo:
	@scripts/setup.sh demo

demo: setup-demo
	$(BIN)/occsora-sim drive --seconds $(DEMO_SECONDS) --seed $(DEMO_SEED) --out out/demo

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

# What the rest stands on: random numbers, ground, road users, worlds, score, environment.
ESSENTIALS := counter_random outpaint ground_canvas traffic_model road_user_state diffusion_world driving_score reward env \
	output_torch packaging

check: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --numprocesses auto --dist loadfile -m "not slow" $(ESSENTIALS:%=tests/test_%.py)

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

audit: setup
	scripts/audit.sh

bench: setup
	$(BIN)/occsora-sim bench --json out/bench.json

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "written: out/site/index.html"

# Weights from nothing: road users, then the ground, each with the defaults of its command. DEVICE=cuda trains on a GPU, in
# batches of 64, for at most 24 minutes; WORKERS processes draw the crops of the ground. An interrupted run goes on where it
# was. The card, assets/weights/README.md, has hours and figures, and says what of this was run.
DEVICE ?= cpu
WORKERS ?= 14
ON_GPU := --device $(DEVICE) --batch 64 --ema 0.998

weights: setup
ifeq ($(DEVICE),cpu)
	$(BIN)/occsora-sim train traffic --out runs/traffic
	$(BIN)/occsora-sim train ground --traffic runs/traffic/traffic.safetensors --out runs/ground
else
	$(BIN)/occsora-sim train traffic $(ON_GPU) --minutes 10 --steps 1500 --rollout-steps 1500 --entry-steps 800 \
		--scenes traffic:0-191+arterial:0-19+roundabout:0-19+motorway:0-15 --out runs/traffic
	$(BIN)/occsora-sim train ground $(ON_GPU) --minutes 14 --plan-steps 8000 --steps 10000 --workers $(WORKERS) \
		--traffic runs/traffic/traffic.safetensors --out runs/ground
endif
	mkdir -p assets/weights
	cp runs/ground/world_model.safetensors assets/weights/small.safetensors.part
	mv assets/weights/small.safetensors.part assets/weights/small.safetensors

# The policy `ppo`: reinforcement from nothing, in the generated world alone, on towns that the world model has seen. An
# interrupted run goes on where it was. The card, assets/policies/README.md, has its curve and figures, and the recipe of the
# policy `learned`.
policy: setup
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python examples/ppo.py --scenes traffic:0-23+arterial:0-5+roundabout:0-5 --ahead 110 \
		--tiles 0 --steps 2 --seconds 12 --num-envs 24 --rollout 24 --pool 60 --total-steps 120000 --entropy 0.03 \
		--save-every 5 --eval-episodes 24 --out runs/ppo
	mkdir -p assets/policies
	cp runs/ppo/policy.safetensors assets/policies/ppo.safetensors.part
	mv assets/policies/ppo.safetensors.part assets/policies/ppo.safetensors

clean:
	rm -rf .venv out .pytest_cache .mypy_cache .ruff_cache
