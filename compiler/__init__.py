"""Floor 5, the front door: CLI, driver, recipes, import and export, artifacts, reports."""
