"""Requests, pictures and archives that mean harm, and how they are sent."""
