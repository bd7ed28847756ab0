extends RefCounted
## Whether and when to reconnect: the decisions of one stream over all its connections.
## Decides by the range of a close code. The wait has full jitter: it is random between 0
## and a limit that doubles, so that clients that lost their connections together do not
## reconnect together. Only a connection that proved itself starts it again.

enum Next { WAIT, NEW_TOKEN, STOP }

const Clock := preload("clock.gd")

const FIRST_S := 0.5
const MAX_S := 20.0
## A connection that lasted so long, or delivered something new, proved itself.
const STABLE_S := 10.0
## A longer delay is regarded as a mistake: the client would look dead.
const DELAY_MAX_S := 300.0
const TOKEN_INVALID := 4200

## Seconds to wait, after [constant Next.WAIT].
var wait_s := 0.0
## Seconds of [member wait_s] that the server asked for.
var delay_s := 0.0

var _clock: Clock
var _attempt := 0
var _renewed := false
var _opened_at_s := -1.0


func _init(clock: Clock) -> void:
	_clock = clock


## The application starts the stream: a refused token is replaced once again.
func begin() -> void:
	_renewed = false


func mark_open() -> void:
	_opened_at_s = _clock.now_s()


func mark_proved() -> void:
	_attempt = 0
	_renewed = false


## Decide what follows an ending. Call once per connection or attempt.
## [param code] is a close code, 0 without one; [param asked_s] is negative without a delay.
func after(code: int, asked_s: float, can_renew: bool) -> Next:
	var was_stable := _opened_at_s >= 0 and _clock.now_s() - _opened_at_s >= STABLE_S
	_opened_at_s = -1.0
	if was_stable:
		mark_proved()
	if code == TOKEN_INVALID:
		# Once in a row: a source whose new token is refused as well would be called in an
		# endless loop without a wait.
		if _renewed or not can_renew:
			return Next.STOP
		_renewed = true
		return Next.NEW_TOKEN
	_renewed = false
	if code >= 4200 and code <= 4299:
		return Next.STOP
	delay_s = 0.0
	if code >= 4100 and code <= 4199:
		delay_s = clampf(asked_s, 0.0, DELAY_MAX_S)
	wait_s = delay_s + full_jitter_s(_attempt, _clock.random())
	_attempt += 1
	return Next.WAIT


## Return the wait before a retry, from 0; the fraction is in [0, 1).
static func full_jitter_s(attempt: int, fraction: float, max_s := MAX_S) -> float:
	return fraction * minf(max_s, FIRST_S * pow(2.0, mini(attempt, 16)))
