print("# glossary\n\nsoon")
