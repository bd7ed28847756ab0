extends RefCounted
## Reads JSON (RFC 8259). Integers of 64 bits stay what they are: the engine's own reader
## makes floats of them. Integers beyond become floats.

## Levels of arrays and objects that can be read. GDScript's own stack has about 1,000.
const DEPTH_MAX := 128

static var _number: RegEx = RegEx.create_from_string(
	"-?(?:0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?"
)

## What is wrong with the text, "" if nothing is.
var error := ""

var _text := ""
var _at := 0


## Return the value of a text; null, with an [member error], if it is not JSON.
func parse(text: String) -> Variant:
	_text = text
	_at = 0
	error = ""
	var value: Variant = _value(0)
	_skip_space()
	if error == "" and _at < _text.length():
		_fail("something follows the value")
	return value if error == "" else null


func _value(depth: int) -> Variant:
	_skip_space()
	if depth > DEPTH_MAX:
		return _fail("the value is nested too deeply")
	match _peek():
		"{":
			return _object(depth)
		"[":
			return _array(depth)
		'"':
			return _string()
		"t":
			return _word("true", true)
		"f":
			return _word("false", false)
		"n":
			return _word("null", null)
	return _parse_number()


func _object(depth: int) -> Variant:
	var members := {}
	_at += 1
	_skip_space()
	if _peek() == "}":
		_at += 1
		return members
	while error == "":
		_skip_space()
		if _peek() != '"':
			return _fail("a name is expected")
		var name: Variant = _string()
		_skip_space()
		if _next() != ":":
			return _fail("':' is expected")
		members[name] = _value(depth + 1)
		_skip_space()
		match _next():
			"}":
				return members
			",":
				pass
			_:
				return _fail("',' or '}' is expected")
	return null


func _array(depth: int) -> Variant:
	var items := []
	_at += 1
	_skip_space()
	if _peek() == "]":
		_at += 1
		return items
	while error == "":
		items.append(_value(depth + 1))
		_skip_space()
		match _next():
			"]":
				return items
			",":
				pass
			_:
				return _fail("',' or ']' is expected")
	return null


## A string. The engine's reader knows the escapes.
func _string() -> Variant:
	var end := _at + 1
	var has_escape := false
	while true:
		end = _text.find('"', end)
		if end < 0:
			return _fail("the string does not end")
		var slashes := 0
		while _text[end - 1 - slashes] == "\\":
			slashes += 1
		has_escape = has_escape or slashes > 0
		if slashes % 2 == 0:
			break
		end += 1
	var inner := _text.substr(_at + 1, end - _at - 1)
	var quoted := _text.substr(_at, end - _at + 1)
	_at = end + 1
	if not has_escape and not "\\" in inner:
		return inner
	var reader := JSON.new()
	if reader.parse(quoted) != OK or reader.data is not String:
		return _fail("a string with a wrong escape")
	return reader.data


func _word(word: String, value: Variant) -> Variant:
	if _text.substr(_at, word.length()) != word:
		return _fail("a value is expected")
	_at += word.length()
	return value


func _parse_number() -> Variant:
	var found := _number.search(_text, _at)
	if found == null or found.get_start() != _at:
		return _fail("a value is expected")
	_at = found.get_end()
	var digits := found.get_string()
	if found.get_string(1) == "" and found.get_string(2) == "" and _fits(digits):
		return digits.to_int()
	return digits.to_float()


static func _fits(digits: String) -> bool:
	var size := digits.trim_prefix("-").length()
	if size != 19:
		return size < 19
	# Texts of the same length compare as their numbers do.
	var is_negative := digits.begins_with("-")
	return (
		digits.trim_prefix("-") <= ("9223372036854775808" if is_negative else "9223372036854775807")
	)


func _skip_space() -> void:
	while _at < _text.length() and _text[_at] in " \t\n\r":
		_at += 1


func _peek() -> String:
	return _text[_at] if _at < _text.length() else ""


func _next() -> String:
	var found := _peek()
	_at += 1
	return found


func _fail(problem: String) -> Variant:
	if error == "":
		error = "not JSON at character %d: %s" % [_at, problem]
	return null
