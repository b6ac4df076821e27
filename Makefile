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
	@echo "make weights  train the shipped weights again (about ten hours of one core)"
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
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: setup
	$(BIN)/occsora-sim bench --json out/bench.json

# The recorded recipe of the weights in assets/weights: the defaults of both commands, on the towns 0 to 95. An
# interrupted run goes on where it was. The card, assets/weights/README.md, has hours and figures.
weights: setup
	$(BIN)/occsora-sim train tokenizer --out runs/tokenizer
	$(BIN)/occsora-sim train world-model --tokenizer runs/tokenizer/tokenizer.safetensors --out runs/world-model
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
