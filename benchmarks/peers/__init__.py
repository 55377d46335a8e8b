"""What others do with the same load. Each module is a program, started by its own command."""
