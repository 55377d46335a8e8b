from floodgate.cli import main

main()
