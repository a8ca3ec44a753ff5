"""The command `pifr`: one file a command group, imported when it is asked for."""
