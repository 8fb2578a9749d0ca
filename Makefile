# make run | test | lint | viz | mlflow | serve | bench | clean: each makes the virtual environment when it is missing or out of date.
# PIP_FLAGS reaches pip, e.g. an index of CPU-only PyTorch builds for a Linux machine without a GPU.
PYTHON ?= python3
PIP_FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH := .venv-bench
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 4000

REDIS := .redis

.PHONY: run test test-redis test-cluster test-airflow test-sharded airflow redis spark lint format viz mlflow serve bench clean install
.DEFAULT_GOAL := run

run: $(READY)
	$(BIN)/kedro run $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

# A Redis for the tests, of Debian's packages: unpacked here, not installed; the tests start it on a free port.
redis: $(REDIS)/.ready

$(REDIS)/.ready:
	rm -rf $(REDIS) && mkdir $(REDIS)
	cd $(REDIS) && apt-get download -qq redis-server redis-tools libjemalloc2 liblzf1 liblua5.1-0 2> apt.log || { cat apt.log; exit 1; }
	cd $(REDIS) && for package in *.deb; do dpkg-deb -x $$package . && rm $$package; done
	touch $@

test-redis: $(READY) redis
	$(BIN)/python -m pytest tests/serving/test_redis.py $(ARGS)

# Spark and Feast's Redis beside the rest; Java 17 must be there. Without them the tests of tests/spark skip.
CLUSTER := $(VENV)/.cluster

$(CLUSTER): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --constraint constraints.txt --editable '.[dev,cluster]'
	touch $@

test-cluster: $(CLUSTER) redis
	$(BIN)/python -m pytest tests/spark tests/serving/test_redis.py $(ARGS)

# A standalone Spark on this machine, a master and two workers, until Ctrl-C; it says how a run is pointed at it.
spark: $(CLUSTER)
	$(BIN)/python -m benchmarks.standalone --folder .spark $(ARGS)

# The daily cycle of an architecture as a DAG of Apache Airflow, for its folder of DAGs: make airflow PIPELINE=daily_star
PIPELINE ?= daily_star
DAGS ?= airflow_dags

airflow: $(READY)
	$(BIN)/kedro airflow create --pipelines=$(PIPELINE) --jinja-file=conf/base/airflow_dag.j2 --target-dir=$(DAGS) $(ARGS)

# Airflow has an environment of its own; the tests find it by $$MULTIDOMAIN_AIRFLOW.
AIRFLOW := .venv-airflow

$(AIRFLOW)/.ready:
	$(PYTHON) -m venv $(AIRFLOW)
	$(AIRFLOW)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) 'apache-airflow>=3.1,<4'
	touch $@

test-airflow: $(READY) $(AIRFLOW)/.ready
	MULTIDOMAIN_AIRFLOW=$(abspath $(AIRFLOW))/bin/airflow $(BIN)/python -m pytest tests/test_airflow.py $(ARGS)

# TorchRec beside the rest, for tables divided among workers; without it those tests skip.
SHARDED := $(VENV)/.sharded

$(SHARDED): $(READY) requirements-sharded.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --no-deps --requirement requirements-sharded.txt
	touch $@

test-sharded: $(SHARDED)
	$(BIN)/python -m pytest tests/training/test_sharded.py $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

viz: $(READY)
	$(BIN)/kedro viz run $(ARGS)

# MLflow's pages of the runs and models below data/ (or $MULTIDOMAIN_DATA).
mlflow: $(READY)
	$(BIN)/mlflow ui --backend-store-uri "sqlite:///$(abspath $(or $(MULTIDOMAIN_DATA),data))/mlflow/mlflow.db" $(ARGS)

# The registered champion behind HTTP, for which materialize has loaded the features:
# make serve ARGS="--dataset movielens --architecture star --port 8080"
serve: $(READY)
	$(BIN)/python -m multidomain.serving.service $(ARGS)

# The field's libraries beside ours, in an environment of their own: they bring Ray, and a package called tests.
bench: $(BENCH)/.ready
	$(BENCH)/bin/python -m benchmarks.peers $(ARGS)

install: $(READY)

clean:
	rm -rf $(VENV) $(BENCH) $(AIRFLOW) $(REDIS) .spark build .viz .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): EXTRA := dev
$(BENCH)/.ready: EXTRA := bench
$(READY) $(BENCH)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; $(PYTHON) is older. Try: make PYTHON=python3.11"; exit 1; }
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --constraint constraints.txt --editable '.[$(EXTRA)]'
	touch $@
