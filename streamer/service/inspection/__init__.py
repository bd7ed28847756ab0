"""What happened to a player: this node's recent history, asked of all nodes."""
