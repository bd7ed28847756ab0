"""
The load test: what a running deployment takes, and how fast it is.

``streamer bench fanout --url URL --key KEY`` runs one scenario against a deployment.
The repository's ``bench/`` runs the same scenarios against servers that it starts
itself, to compare them.

How a figure comes about::

    scenarios/     one module each: what is measured, and in which figures
    runner         rounds, trials, progress, medians
    target         what a server has to offer to be measured; deployment: a running
                   streamer
    load/          the load, in processes of its own: epoll, raw sockets
    usage          what the kernel says of processes: CPU time, resident memory
    report         the table, and the files

* Rounds are repeated, and a figure is the median of the rounds, with half of their
  range beside it. With several targets, each takes its turn within a round, and a ratio
  is formed within a round.
* CPU is the time that the kernel has given to the threads of the server; a store is
  counted separately. The load reports how busy it was itself, and the report marks the
  figures that the load limited.
* Open-loop load follows a timetable, and latency counts from the time at which a
  message was due, not from the time at which it could be sent. A stall shows in full
  length (no coordinated omission).
"""
