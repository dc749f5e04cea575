"""What docs/evidence/reliability.md has to show, and the rows of it that a plain test proves."""

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
    "B4-deadlock": "the handler waits for a lock for ever",
    "B4-loop": "an endless loop in C in the handler",
    "B4-exit": "the handler ends its process",
    "B4-segfault": "a segmentation fault in the handler",
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
    "C7": "known vulnerabilities: docs/operate/audit.md",
    "D-10": "10 minutes of half load, with hostile requests and clients that leave",
    "D-60": "60 minutes of it",
    "D-malformed": "requests that are hardly HTTP",
}
BY_TESTS_ALONE = ("A2", "C3", "C4", "C5", "C6")  # all others are measured by a command, whatever tests show too


class Proof(NamedTuple):
    """A test that shows a row, or a part of it. file: from the root of the repository."""

    row: str
    claim: str
    file: str
    test: str


PROOFS = (
    Proof(
        "A1",
        "in short: 120 hostile among 280 good requests, each its own answer, the same two workers",
        "tests/lab/hostile/test_hostile_rows.py",
        "test_hostile_requests_among_good_ones",
    ),
    Proof(
        "A2",
        "batches of 1 to 8 from 43 kinds of requests, 30 of them bad, through TorchServe's decoder, `Service.predict` "
        "and encoder: each answer byte for byte as when it is alone; 200 batches in the laboratory's run, 2,000 with "
        "`EXAMPLES=10`",
        "tests/handlers/worker/test_hostile_models.py",
        "test_nothing_in_a_batch_changes_another_answer",
    ),
    Proof(
        "A3",
        "every bomb in a worker: refused, or paid for what is seen; at most 150 MiB more",
        "tests/lab/hostile/test_hostile_rows.py",
        "test_bombs_cost_a_worker_little",
    ),
    Proof(
        "A4",
        "every kind once: pictures, bodies, forms and headers",
        "tests/lab/hostile/test_hostile_rows.py",
        "test_every_kind_of_body_form_and_header",
    ),
    Proof(
        "A5",
        "14 kinds of answers that no worker could send, twice each: no worker ends",
        "tests/lab/hostile/test_hostile_rows.py",
        "test_answers_that_would_end_a_worker",
    ),
    Proof(
        "A6",
        "300 requests of any bytes, of mutated pictures and documents (hypothesis): read or refused, within 2 s",
        "tests/lab/hostile/test_hostile_parsing.py",
        "test_any_request_is_read_or_refused",
    ),
    Proof(
        "A6",
        "200 requests with any headers (hypothesis)",
        "tests/lab/hostile/test_hostile_parsing.py",
        "test_any_headers_are_read_or_refused",
    ),
    Proof(
        "B1",
        "behind the front, which asks twice: workers killed under traffic, no client fails, readiness tells",
        "tests/e2e/test_front.py",
        "test_killed_workers_are_no_failure_of_a_client_and_readiness_tells_them",
    ),
    Proof(
        "B5",
        "every backend but OpenVINO without memory: an error that says so, and the next batch right",
        "tests/contract/test_memory.py",
        "test_a_backend_that_gets_no_memory_says_so_and_goes_on",
    ),
    Proof(
        "B9",
        "behind the front: slow senders are cut at their limit and slow nobody",
        "tests/e2e/test_front.py",
        "test_slow_senders_are_cut_and_do_not_slow_others",
    ),
    Proof(
        "B10",
        "6 slow requests before the drain are answered, those after it refused; no process, port or folder left",
        "tests/e2e/test_operations.py",
        "test_a_drained_stop_answers_what_was_asked_and_refuses_the_rest",
    ),
    Proof(
        "B11",
        "an upgrade to another version under traffic fails no request",
        "tests/e2e/test_operations.py",
        "test_an_upgrade_fails_no_request",
    ),
    Proof(
        "C1",
        "the same archives of a tiny model: each refused for its own reason within 2 s",
        "tests/mar_tools/archives/test_archive_checks.py",
        "test_more_than_thirty_hostile_archives_are_each_refused_for_their_own_reason_within_2_s",
    ),
    Proof(
        "C1",
        "an archive of every CPU backend is accepted",
        "tests/mar_tools/archives/test_archive_checks.py",
        "test_an_archive_of_every_backend_is_accepted",
    ),
    Proof(
        "C2",
        "1,000 flips anywhere in an archive of a tiny model, and one in each header: all refused",
        "tests/mar_tools/archives/test_archive_checks.py",
        "test_a_flip_of_one_byte_anywhere_is_refused",
    ),
    Proof(
        "C3",
        "built from another folder at another time, with another umask, zone and locale: the same SHA-256",
        "tests/mar_tools/archives/test_archive.py",
        "test_built_from_another_folder_at_another_time_with_another_umask_zone_and_locale_it_is_the_same",
    ),
    Proof(
        "C4",
        "all sockets of frontend and workers: loopback only, the five ports and no other",
        "tests/e2e/test_access.py",
        "test_it_listens_on_loopback_at_five_ports_and_nowhere_else",
    ),
    Proof(
        "C5",
        "every route with a token of another kind, a wrong one, a cut one and none: refused, the server unchanged",
        "tests/e2e/test_access.py",
        "test_a_route_takes_no_token_but_its_own",
    ),
    Proof(
        "C5",
        "every method of gRPC likewise",
        "tests/e2e/test_access.py",
        "test_a_grpc_method_takes_no_token_but_its_own",
    ),
    Proof(
        "C5",
        "29 paths, methods, headers and cross-site forms, each from two hosts: none goes round the token",
        "tests/e2e/test_access.py",
        "test_no_path_method_or_header_goes_round_the_token",
    ),
    Proof(
        "C5",
        "23 URLs, `..` and absolute paths of archives, with the right token: nothing fetched, copied or run (canaries)",
        "tests/e2e/test_access.py",
        "test_the_management_token_registers_no_archive_from_elsewhere",
    ),
    Proof(
        "C5",
        "workflow archives, likewise",
        "tests/e2e/test_access.py",
        "test_the_management_token_registers_no_workflow",
    ),
    Proof(
        "C5",
        "**not held**: an unpacked archive in a folder of this machine is registered with the management token; "
        "`enable_model_api=false` closes it",
        "tests/e2e/test_access.py",
        "test_known_limit_the_management_token_registers_an_unpacked_archive_of_this_machine",
    ),
    Proof(
        "C6",
        "unsigned: refused before TorchServe sees it",
        "tests/mar_tools/archives/test_signing.py",
        "test_what_is_not_signed_is_refused",
    ),
    Proof(
        "C6",
        "signed by another key: refused",
        "tests/mar_tools/archives/test_signing.py",
        "test_what_another_key_signed_is_refused",
    ),
    Proof(
        "C6",
        "another archive under the same signature: refused",
        "tests/mar_tools/archives/test_signing.py",
        "test_another_archive_under_the_same_signature_is_refused",
    ),
    Proof(
        "C6",
        "a signature whose digest, version, model or bytes were edited: refused",
        "tests/mar_tools/archives/test_signing.py",
        "test_a_signature_that_was_edited_is_refused",
    ),
    Proof(
        "C6",
        "a real server that asks for signatures serves what is signed, and nothing else",
        "tests/e2e/test_signed_archives.py",
        "test_what_is_signed_is_served_and_nothing_else",
    ),
    Proof(
        "C7",
        "the bill of materials in each archive is valid CycloneDX 1.6 and names what is installed",
        "tests/mar_tools/archives/test_archive_checks.py",
        "test_the_bill_of_materials_is_valid_and_names_what_is_installed",
    ),
    Proof(
        "C7",
        "SECURITY.md names the versions that TorchServe's jar has",
        "tests/documents/test_security_page.py",
        "test_the_versions_of_the_jar_are_on_the_page",
    ),
)
