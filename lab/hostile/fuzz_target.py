"""What atheris drives: python -m lab.hostile.fuzz_target CORPUS [options of libFuzzer]."""

import sys

import atheris

with atheris.instrument_imports(include=["vision_serving", "PIL"]):
    from lab.hostile.attempts import attempt_request

if __name__ == "__main__":
    atheris.Setup(sys.argv, attempt_request)
    atheris.Fuzz()
