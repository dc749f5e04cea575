# Shortcuts. `check` runs what .venv has: `source .venv/bin/activate` first.
SOURCES = handlers scripts client examples deploy/grafana lab tests

.PHONY: quickstart stop check test ray lab

quickstart:
	bash scripts/quickstart.sh

stop:
	bash scripts/quickstart.sh --stop

check:
	ruff check $(SOURCES) && ruff format --check $(SOURCES) && mypy $(SOURCES)

test:
	bash scripts/test.sh

ray:
	bash scripts/test.sh --ray

lab:
	bash scripts/test.sh --lab
