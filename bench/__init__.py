"""
Questions about speed, one a module, asked of this server and of its peers.

Every question is one command, ``python -m bench.fanout --help``, and runs as it is: it
starts the servers by itself on this machine's loopback and stops them. ``--url`` asks a
running deployment instead. ``python -m bench.everything`` asks all of them and writes
``RESULTS.md``.

How a figure comes about::

    question      one module each: what is asked, of whom, in which figures
      harness     rounds, turns, interleaving, options, table, files
        peers/    how a server is started, what a reader and a publisher say to it
        load/     the load, in processes of its own: epoll, raw sockets
        processes what the kernel says of the servers: CPU time, resident memory

* Peers take turns within a round, and rounds are repeated; a ratio is formed within a
  round and its median is told, with the spread beside it. A machine that gets slower
  for a minute moves both sides of a ratio.
* Servers run on one core, the load and every store on the others, where there are two.
* CPU is the time the kernel has given to the threads of the server; a store is counted
  apart. The load says how busy it was itself, and the report marks the figures for
  which it was the limit.
* Open-loop load goes by a timetable, and latency counts from the time at which a
  message was due, not from when it could be sent: a stall shows as long as it was
  (that is, without coordinated omission).
"""
