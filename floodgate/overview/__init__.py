"""The live picture: everything an operator sees of the bots, the queues, the campaigns and what they depend on.

:class:`~floodgate.overview.reader.OverviewReader` reads it; `floodgate status`, `floodgate top`, `floodgate web` and
`floodgate metrics` show it.
"""
