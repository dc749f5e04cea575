"""What a client sent: pictures, options and wishes, whatever protocol brought them."""
