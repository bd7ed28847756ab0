extends RefCounted
## The number of unread notifications, by the rule of the protocol: the server's number
## replaces it, and each notification of the inbox adds one, repeats as well.

const Wire := preload("wire.gd")

## [constant Wire.NONE] while it is unknown.
var value := Wire.NONE

var _topics: PackedStringArray


## [param topics] are those that this stream asks for itself.
func _init(topics: PackedStringArray) -> void:
	_topics = topics


func take(message: Wire) -> void:
	if message.kind == "notification":
		var one := message.notification
		var is_own := one.topic != "" and one.topic in _topics
		if value != Wire.NONE and one.is_stored() and not is_own:
			value += 1
	elif message.unread != Wire.NONE:
		value = message.unread
