"""What a deployment needs beside Floodgate: alert rules for Prometheus, dashboards for Grafana.

``python -m deploy`` makes ``prometheus/alerts.yml`` and ``grafana/dashboards`` in this folder, from the table of
metrics and from the modules here. The files are checked in, and a test fails if they are not up to date.
"""
