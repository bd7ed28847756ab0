extends RefCounted
## The token of a client, when it ends, and how to get another one. Knows nothing of HTTP
## or WebSocket.

signal failed(problem: String)

const Clock := preload("clock.gd")
const JsonReader := preload("json_reader.gd")
const Reconnect := preload("reconnect.gd")

## A token that ends within this time is replaced before a connection.
const FRESH_S := 60.0
## A source that does not answer for so long has failed.
const SOURCE_TIMEOUT_S := 30.0
## Part of a token's life after which it is renewed; random between the two.
const RENEW_FROM := 0.75
const RENEW_TO := 0.9
## Keeps a source of very short-lived tokens from being called without a pause.
const RENEW_MIN_S := 1.0
## The longest wait between two calls of a source that keeps failing.
const FAILURE_MAX_S := 600.0

## The token; "" while there is none, see [method want].
var current := ""
## The player that the token names, "" if that cannot be read.
var player := ""

var _source: Callable
var _clock: Clock
var _call := 0
var _is_calling := false
var _called_at_s := 0.0
var _not_before_s := -INF
var _renew_at_unix_s := INF
var _ends_at_unix_s := 0.0
var _failures := 0


func _init(token: String, source: Callable, clock: Clock) -> void:
	_source = source
	_clock = clock
	if token != "":
		_set_token(token)


func can_renew() -> bool:
	return _source.is_valid()


## Ask the source for a token if there is none. May be called at any rate.
func want() -> void:
	if current == "":
		renew()


## A server refused this token: forget it, if it can be replaced.
func refuse(token: String) -> void:
	if current == token and can_renew():
		current = ""


## Before a connection: forget a token that ends soon.
func before_connection() -> void:
	# When one that cannot be read ends, the server says so.
	if can_renew() and _ends_at_unix_s > 0 and _ends_at_unix_s - _clock.unix_s() < FRESH_S:
		current = ""


## Return whether it is time to renew the token of an open stream.
func is_renewal_due() -> bool:
	return can_renew() and current != "" and _clock.unix_s() >= _renew_at_unix_s


## The network or the app is back: do not wait for a failed source.
func hurry() -> void:
	_not_before_s = minf(_not_before_s, _clock.now_s() + Reconnect.FIRST_S)


## Get another token, and keep the current one until then.
func renew() -> void:
	if _is_calling or not can_renew() or _clock.now_s() < _not_before_s:
		return
	_is_calling = true
	_called_at_s = _clock.now_s()
	_call += 1
	_run(_call)


func tick() -> void:
	if _is_calling and _clock.now_s() - _called_at_s > SOURCE_TIMEOUT_S:
		_fail("the token source did not answer")


func _run(call_number: int) -> void:
	var token: Variant = await _source.call()
	# An answer that came too late is no use: another call may be on its way.
	if not _is_calling or call_number != _call:
		return
	if token is not String or token == "":
		_fail("the token source returned no token")
		return
	_is_calling = false
	_failures = 0
	_set_token(token)
	# A renewal must not follow another one at once.
	_not_before_s = _clock.now_s() + RENEW_MIN_S * (0.5 + 0.5 * _clock.random())


func _fail(problem: String) -> void:
	_is_calling = false
	var jitter_s := Reconnect.full_jitter_s(_failures, _clock.random(), FAILURE_MAX_S)
	_not_before_s = _clock.now_s() + RENEW_MIN_S + jitter_s
	_failures += 1
	failed.emit(problem)


func _set_token(token: String) -> void:
	current = token
	var claims := claims_of(token)
	player = claims["sub"] if claims.get("sub") is String else ""
	var exp_s := _number_of(claims, "exp")
	var now_s := _clock.unix_s()
	var left_s := exp_s - now_s
	# The clock of a player's device may be hours ahead of the server's. A new token is then
	# as good as its whole life.
	if left_s <= 0 and can_renew() and claims.has("iat"):
		left_s = exp_s - _number_of(claims, "iat")
	if left_s <= 0:
		_ends_at_unix_s = 0.0
		_renew_at_unix_s = INF
		return
	_ends_at_unix_s = now_s + left_s
	var part := lerpf(RENEW_FROM, RENEW_TO, _clock.random())
	_renew_at_unix_s = now_s + maxf(RENEW_MIN_S, left_s * part)


static func _number_of(claims: Dictionary, name: String) -> float:
	var value: Variant = claims.get(name)
	return value if value is int or value is float else 0.0


## Return the claims of a JSON Web Token, {} for other tokens. They are a hint: when to
## renew, and whether the player is another one.
static func claims_of(token: String) -> Dictionary:
	var parts := token.split(".")
	if parts.size() != 3:
		return {}
	var base64 := parts[1].replace("-", "+").replace("_", "/")
	base64 += "=".repeat((4 - base64.length() % 4) % 4)
	for letter in base64:
		if not (letter in "+/=" or letter.is_valid_int() or letter.to_upper() != letter.to_lower()):
			return {}
	var claims: Variant = JsonReader.new().parse(Marshalls.base64_to_utf8(base64))
	return claims if claims is Dictionary else {}
