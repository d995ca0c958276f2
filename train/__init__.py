"""THE MODEL: manifest -> weights -> answers."""
