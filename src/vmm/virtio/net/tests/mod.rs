//! A driver that these tests play, with a tap that is a socket (frames keep their boundaries there too), and with a real one.

mod cable;
mod frames;
mod hostile;
mod station;
mod sys;
mod tap;
