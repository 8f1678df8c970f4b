"""Array arithmetic that torch modules and numpy codes share; nothing here knows either of them."""
