"""Requests, pictures and archives that mean harm, and how they are sent.

requests.py       the corpus: each kind with its expected status and answer
pictures.py       damaged, odd and foreign pictures
picture_files.py  files that Pillow does not write
bombs.py          files that would cost far more than they weigh
documents.py      JSON bodies that are no request
forms.py          odd multipart forms and headers
archives.py       archives that must be refused, each for its reason
raw_zip.py        zip files that no honest writer would write
handler.py        an entry file whose answers would end a worker
server.py         the server of section A, and the right answers, computed in process
memory.py         what a file costs a worker
attempts.py       one request of any bytes, read as a worker would
fuzzing.py        fuzzing guided by coverage
fuzz_target.py    what the fuzzer drives
rows.py           rows A1 and A3 to A6
"""
