"""Dead letters as an operator works with them: found by criteria, shown, put back, dropped."""
