"""AdapterHub's directories: names, places, configuration, reading and writing."""
