extends RefCounted
## HTTP requests with a token, repeated until there is a usable response. All of them are
## safe to repeat. Polled, as everything here.

const Clock := preload("clock.gd")
const JsonReader := preload("json_reader.gd")
const Reconnect := preload("reconnect.gd")
const TokenKeeper := preload("token_keeper.gd")

const ATTEMPTS_MAX := 6
const RETRY_S := 60.0
const ATTEMPT_S := 15.0
const TEMPORARY: Array[int] = [408, 429, 502, 503, 504]
const PERMANENT_LIMITS: Array[String] = ["topics_per_player", "mutes_per_player"]


## One request and its attempts.
class Call:
	extends RefCounted
	signal finished(result: StreamerResult)

	var method: HTTPClient.Method
	var path := ""
	var body := ""
	var token := ""
	var exchange: RefCounted
	var started_s := 0.0
	var attempt_started_s := 0.0
	var not_before_s := -INF
	var attempts := 0
	var attempts_max := ATTEMPTS_MAX
	var is_renewed := false
	var result: StreamerResult


var _base_url: String
var _http: Node
var _tokens: TokenKeeper
var _clock: Clock
var _calls: Array[Call] = []


func _init(base_url: String, http: Node, tokens: TokenKeeper, clock: Clock) -> void:
	_base_url = base_url
	_http = http
	_tokens = tokens
	_clock = clock


## Begin a request. It ends during a later [method tick].
func start(
	method: HTTPClient.Method, path: String, body := "", attempts_max := ATTEMPTS_MAX
) -> Call:
	var one := Call.new()
	one.method = method
	one.path = path
	one.body = body
	one.attempts_max = attempts_max
	one.started_s = _clock.now_s()
	_calls.append(one)
	return one


func tick() -> void:
	# What follows a response may begin further requests.
	for one: Call in _calls.duplicate():
		if one.result == null:
			_advance(one)
		if one.result != null:
			_calls.erase(one)


## Drop all requests.
func abort(problem: String) -> void:
	var calls := _calls.duplicate()
	_calls.clear()
	for one: Call in calls:
		if one.exchange != null:
			one.exchange.abort()
		_finish(one, StreamerResult.failed(problem))


func _advance(one: Call) -> void:
	var now_s := _clock.now_s()
	if one.exchange != null:
		if one.exchange.is_done:
			_take(one)
		elif now_s - one.attempt_started_s > ATTEMPT_S:
			one.exchange.abort()
			one.exchange = null
			_retry(one, StreamerResult.failed("no response in time"), "")
	elif now_s >= one.not_before_s:
		_tokens.want()
		if _tokens.current != "":
			one.token = _tokens.current
			one.attempt_started_s = now_s
			one.exchange = _http.start(one.method, _base_url + one.path, one.token, one.body)
		elif now_s - one.started_s > RETRY_S:
			_finish(one, StreamerResult.failed("no token in time", true))


func _take(one: Call) -> void:
	var exchange := one.exchange
	one.exchange = null
	var result := StreamerResult.new()
	result.status = exchange.status
	if result.status == 0:
		_retry(one, StreamerResult.failed("no response"), "")
		return
	var reader := JsonReader.new()
	if exchange.body != "":
		result.value = reader.parse(exchange.body)
	if result.status >= 200 and result.status < 300:
		# The page of a captive portal, for example.
		result.ok = reader.error == ""
		result.detail = reader.error
		_finish(one, result)
		return
	var problem: Dictionary = result.value if result.value is Dictionary else {}
	result.problem = str(problem.get("type", "")).trim_prefix("about:")
	var detail := str(problem.get("detail", problem.get("title", "without an explanation")))
	result.detail = "%d %s" % [result.status, detail]
	var is_temporary: bool = result.status in TEMPORARY
	# A 409 with Retry-After is a limit that passes.
	is_temporary = is_temporary or (result.status == 409 and exchange.retry_after != "")
	if result.status == 401 and not one.is_renewed and _tokens.can_renew():
		one.is_renewed = true
		_tokens.refuse(one.token)
	elif is_temporary and not str(problem.get("limit")) in PERMANENT_LIMITS:
		_retry(one, result, exchange.retry_after)
	else:
		_finish(one, result)


func _retry(one: Call, result: StreamerResult, retry_after: String) -> void:
	result.is_temporary = true
	if retry_after.is_valid_int():
		result.retry_after_s = clampf(retry_after.to_float(), 0.0, Reconnect.DELAY_MAX_S)
	var jitter_s := Reconnect.full_jitter_s(one.attempts, _clock.random())
	one.not_before_s = _clock.now_s() + result.retry_after_s + jitter_s
	one.attempts += 1
	var is_too_late := one.not_before_s - one.started_s > RETRY_S
	if is_too_late or one.attempts >= one.attempts_max:
		_finish(one, result)


func _finish(one: Call, result: StreamerResult) -> void:
	one.result = result
	one.finished.emit(result)
