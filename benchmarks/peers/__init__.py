"""How fast the field's libraries train, and how fast this project does, on the same rows.

    make bench                                       # an environment of its own, then everything below
    python -m benchmarks.peers                       # with the peers installed: pip install -e '.[bench]'
    python -m benchmarks.peers --quick               # small, to see that it works
    python -m benchmarks.peers --axes ids --models dnn --batches 2048 --rounds 3
    python -m benchmarks.peers --bf16                # ours in bf16 beside it, where the processor gains from it
    python -m benchmarks.peers --profile             # beside it: where a step of ours spends its time

Each library trains with its own trainer, loader, embedding tables and Adam, as its documentation tells users to; ours
with ``training.fit``. Fields, ids, rows, widths, batch, learning rate and fp32 are the same. For one setting every side
is a process of its own, which stays: the processes train a slice in turn, round after round, each waiting in its step
while another works, so that whatever else the machine does meets all of them. Time is taken between the ends of steps;
first steps are left out. What is measured:

- rows/s of training, the median over rounds; also per second of the processor;
- the most memory after the rounds, and after the imports alone; beside it how much of it is pages of
  mapped files at that moment, and what worker processes and Ray hold then, which is no part of it;
- test AUC after the same number of rows, and after the same seconds of training, within one epoch.

How the multi-task models get their label: a domain is a task; peers know no task mask, so the label of a row stands in
the column of *every* task, each row goes through every tower and every tower learns from it; a test row is scored by
the tower of its own domain. Ours takes the domain of the row and runs its own tower alone.

One setting holds up to four models at once: 10 million ids need 10 GiB of memory. Linux and macOS.
"""
