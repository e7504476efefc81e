"""Why a submission, a reservation or its renewal is refused: limits, and the state of pools."""
