//! Servers that err, lie, break off or flood, over every transport: what one makes of them, the other
//! does as well.

mod bodies;
mod dropped;
mod floods;
mod kept;
mod responses;
