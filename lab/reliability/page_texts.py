"""What docs/evidence/reliability.md says around its tables."""

INTRODUCTION = """# Reliability

<!-- Written by lab/run_chaos.py from the files of reliability/: change neither by hand. -->

What the server does when requests are hostile, processes die, archives are broken, and hours go by. Each row was
measured by a command, which wrote a file of `lab/results/reliability/`; this page is rendered from those files
(`python lab/run_chaos.py --render`), and a test fails where it is not. Tests that show a row, or a part of
it, stand below each table.

## Set-up

- **Machine**: {machines}. Clients and server share it.
- **Server**: the shipped `config.properties` on free ports, with 2 workers, batches of 4, a delay of 20 ms; archives
  with a `responseTimeout` of 5 s. It serves the digits classifier of `examples/` in eager fp32, with an entry file
  ([`faulty_classification.py`](../../lab/testbed/faulty_classification.py)) that does, on a picture of
  one of seven colours, what a broken model would do. `job_queue_size` is 500, not the shipped 100: while one of two
  workers starts again, the other has less than half of two cores, and what has to wait then shall show as time, not as
  503; B7 tests refusals, with a queue of 8. Section A has a server and an entry file of its own
  ([`hostile_handler.py`](../../lab/hostile/handler.py)), with the shipped queue.
- **Traffic**: an open loop ([`traffic.py`](../../lab/testbed/traffic.py)) asks at random times, at half
  of the rate at which the server is saturated, whether or not it keeps up, each time over a new connection. Of every
  request it knows the status and the answer that must come back: 20 pictures that the model never saw, with its own
  answers to them, computed in process. Clients give up after 8 s.
- **Failures** are counted one by one and for each repetition, never averaged; all are listed below the tables, with
  the moment at which they were due, relative to the fault, and how long the client waited. `failed`: answered 500 or
  507. `unanswered`: not answered at all. Both are what a client sees that does not try again; `visible after a retry`
  is what is left for one that sends such a request once more.
- **`kill -9`** stands for what the kernel does where memory runs out: a simulated OOM.
"""

LIMITS = """## What this machine cannot show

- **Absolute tails.** On two cores that clients and server share, latencies are those of this machine; the bounds above
  are about correctness and about times of seconds.
- **Stalls of the client itself.** The growing spikes of p99 in D-60 are the client's own: Python's collector goes
  through all that it has asked until then. It has been kept from that since (D-10).
- **Growth in an hour, from ten minutes.** D-10 leaves out two minutes and extrapolates from eight, in which processes
  still warm up: 1 MB more is 7.5 MB/h. D-60 leaves out ten minutes; its slope is that of a server which has run.
- **Faults of GPUs.** None is here: a poisoned CUDA context, or memory of a GPU that runs out.
- **Races of many cores.** Two workers and two cores meet seldom where 64 would meet often.
- **A real OOM of a cgroup.** The kernel chooses whom it ends, maybe the frontend; here a worker is chosen, and killed.
"""
