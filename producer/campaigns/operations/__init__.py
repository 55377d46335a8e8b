"""The operations on campaigns, as programs, the command line and the gateway use them."""
