extends Node
## Runs the tests, or the driver of the conformance suite: what mode.txt says.


func _ready() -> void:
	var mode := FileAccess.get_file_as_string("res://mode.txt")
	add_child(load("res://%s.gd" % mode).new())
