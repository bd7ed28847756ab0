extends RefCounted
## Members of a JSON object with the type that the protocol gives them. Null counts as
## missing; a member of another type makes the object wrong.

static var _time: RegEx = RegEx.create_from_string(
	"^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d(\\.\\d+)?(Z|[+-]\\d\\d:\\d\\d)$"
)

## Whether a member has another type, or is missing although it must be there.
var is_wrong := false

var _members := {}


func _init(value: Variant) -> void:
	if value is Dictionary:
		_members = value
	else:
		is_wrong = true


static func is_time(text_of: String) -> bool:
	return _time.search(text_of) != null


func has(name: String) -> bool:
	return _members.has(name)


func any(name: String) -> Variant:
	return _members.get(name)


func text(name: String, is_required := false) -> String:
	var value: Variant = _members.get(name)
	if value is String:
		return value
	is_wrong = is_wrong or is_required or value != null
	return ""


func flag(name: String, otherwise: bool) -> bool:
	var value: Variant = _members.get(name)
	if value is bool:
		return value
	is_wrong = is_wrong or value != null
	return otherwise


func number(name: String, otherwise := 0, is_required := false) -> int:
	var value: Variant = _members.get(name)
	if value is int:
		return value
	is_wrong = is_wrong or is_required or value != null
	return otherwise


func real(name: String, otherwise: float) -> float:
	var value: Variant = _members.get(name)
	if value is int or value is float:
		return value
	is_wrong = is_wrong or value != null
	return otherwise


func list(name: String, is_required := false) -> Array:
	var value: Variant = _members.get(name)
	if value is Array:
		return value
	is_wrong = is_wrong or is_required or value != null
	return []
