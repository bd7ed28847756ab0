extends RefCounted
## Time and randomness, so that tests control both.


## Monotonic seconds.
func now_s() -> float:
	return Time.get_ticks_usec() / 1e6


## Unix time in seconds.
func unix_s() -> float:
	return Time.get_unix_time_from_system()


## A number in [0, 1).
func random() -> float:
	return minf(randf(), 0.999999)
