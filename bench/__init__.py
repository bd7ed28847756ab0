"""
The load test's scenarios against servers that are started here, to compare them.

One module per scenario, ``python -m bench.fanout --help``, each a command that runs as
it is: it starts the servers by itself on this machine's loopback and stops them.
``--url`` measures a running deployment instead, as ``streamer bench`` does. ``python -m
bench.everything`` runs all scenarios and writes ``RESULTS.md``.

The scenarios, the load and the reports are those of `streamer.bench`. Here is what
compares servers::

    scenario      one module each: which servers are compared, and what to know of them
      comparison  options, which servers are installed, profiles
      peers/      how a server is started, and which requests it takes
      results     RESULTS.md from the JSON files of a run
      growth      several deployments under load at once: `shards`, `nodes`,
                  `workers`
    capacity      what a deployment needs, and whether that is true
      capacity_model  the arithmetic
      fleet       a node with several workers, and many connections

Servers run on one core, the load and every store on the others, where there are two.
"""
