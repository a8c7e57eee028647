"""What is measured, how, and how sure we are: quality, speed, size, intervals, and the gates that judge them."""
