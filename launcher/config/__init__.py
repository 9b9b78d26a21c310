"""From a YAML file to a frozen value: every mistake at once, as `file:line: key: what. hint`. Only these read YAML."""
