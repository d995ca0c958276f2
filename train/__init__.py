"""The model: manifest -> weights -> answers."""
