# `make demo` and `make test` set themselves up, in .venv in this folder. Nothing here needs a GPU or a display.
BIN := .venv/bin
export PYTHONUNBUFFERED := 1

DEMO_SECONDS ?= 20
DEMO_SEED ?= 0

.PHONY: help demo test lint bench weights policy setup setup-demo clean

help:
	@echo "make demo     drive $(DEMO_SECONDS) s through a generated world with the shipped weights; writes out/demo/"
	@echo "make test     all tests"
	@echo "make lint     ruff check, ruff format --check and mypy"
	@echo "make bench    frames per second of the world; writes out/bench.json"
	@echo "make weights  train weights from nothing (about ten hours of one core; DEVICE=cuda: traffic and denoiser on a GPU)"
	@echo "make policy   train a driving policy in the generated world, by the recipe of the shipped one (about an hour)"
	@echo "make setup    what the others do first: .venv with everything in it"
	@echo "make clean    remove .venv, out/ and caches"

setup:
	@scripts/setup.sh dev

setup-demo:
	@scripts/setup.sh demo

demo: setup-demo
	$(BIN)/occsora-sim drive --seconds $(DEMO_SECONDS) --seed $(DEMO_SEED) --out out/demo

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: setup
	$(BIN)/occsora-sim bench --json out/bench.json

# Weights from nothing: tokenizer, traffic, denoiser, each with the defaults of its command. DEVICE=cuda trains traffic and
# denoiser on a GPU, in batches of 64 windows that WORKERS processes draw. An interrupted run goes on where it was. The
# card, assets/weights/README.md, has hours and figures, and says what of this was run.
DEVICE ?= cpu
WORKERS ?= 14
ON_GPU := --device $(DEVICE) --workers $(WORKERS) --batch 64 --ema 0.998 \
	--scenes traffic:0-191+arterial:0-19+roundabout:0-19+motorway:0-15

weights: setup
	$(BIN)/occsora-sim train tokenizer --out runs/tokenizer
ifeq ($(DEVICE),cpu)
	$(BIN)/occsora-sim train traffic --out runs/traffic
	$(BIN)/occsora-sim train world-model --tokenizer runs/tokenizer/tokenizer.safetensors \
		--traffic runs/traffic/traffic.safetensors --out runs/world-model
else
	$(BIN)/occsora-sim train traffic $(ON_GPU) --steps 1500 --rollout-steps 1500 --entry-steps 800 --out runs/traffic
	$(BIN)/occsora-sim train world-model $(ON_GPU) --tokenizer runs/tokenizer/tokenizer.safetensors \
		--traffic runs/traffic/traffic.safetensors --steps 1580 --lr 1.2e-3 --warmup 200 --whole 32 --out runs/world-model
endif
	mkdir -p assets/weights
	cp runs/world-model/world_model.safetensors assets/weights/small.safetensors.part
	mv assets/weights/small.safetensors.part assets/weights/small.safetensors

# The recipe of a driving policy: learned in the generated world alone, on towns that the world model has seen.
policy: setup
	OMP_NUM_THREADS=1 $(BIN)/occsora-sim train agent --workers 2 --out runs/agent
	mkdir -p assets/policies
	cp runs/agent/policy.safetensors assets/policies/learned.safetensors.part
	mv assets/policies/learned.safetensors.part assets/policies/learned.safetensors

clean:
	rm -rf .venv out .pytest_cache .mypy_cache .ruff_cache
