print("# cli\n\nsoon")
