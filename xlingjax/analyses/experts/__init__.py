"""The parts of `concept_experts`: cells, sharing across halves of the documents, and the pieces that excite experts."""
