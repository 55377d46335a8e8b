"""Renders a campaign's content for one recipient: templates, markup and the codes in buttons and links."""
