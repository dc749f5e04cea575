"""What docs/reliability.md has to show, and the rows of it that a plain test proves."""

from typing import NamedTuple

SECTIONS = {
    "A": "Hostile input",
    "B": "Process faults, under continuous traffic",
    "C": "Archives, access, supply chain",
    "D": "Endurance",
}
CLAIMS = {
    "A1": "hostile requests among good ones",
    "A2": "any item of a batch bad, through TorchServe's own service code",
    "A3": "decompression bombs",
    "A4": "damaged and odd pictures and bodies",
    "A5": "answers that would end a worker",
    "A6": "fuzzing",
    "B1": "one worker killed",
    "B2": "both workers killed",
    "B3": "one worker stopped",
    "B4": "deadlock, endless loop, exit and segmentation fault in the handler",
    "B5": "8 GB allocated in the handler",
    "B6": "a model that cannot load beside a healthy one",
    "B7": "more requests than the queue holds",
    "B8": "clients that disconnect",
    "B9": "bodies too large, endless, cut, and slow",
    "B10": "drain and stop",
    "B11": "register, scale, unregister",
    "B12": "the frontend killed",
    "C1": "corrupt and hostile archives",
    "C2": "flipped bytes",
    "C3": "reproducible archives",
    "C4": "listening addresses",
    "C5": "access without a token",
    "C6": "signed archives",
    "C7": "known vulnerabilities",
    "D": "endurance",
}


class Proof(NamedTuple):
    """A test that shows a row, or a part of it. file: from the root of the repository."""

    row: str
    claim: str
    file: str
    test: str


PROOFS: tuple[Proof, ...] = ()
