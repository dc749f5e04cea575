# Shortcuts; each is one command of the README.
.PHONY: quickstart stop check test

quickstart:
	bash scripts/quickstart.sh

stop:
	bash scripts/quickstart.sh --stop

check:
	ruff check . && ruff format --check . && mypy handlers scripts examples tests

test:
	bash scripts/test.sh
