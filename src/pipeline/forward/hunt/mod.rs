//! The hunt for a message that the other side closes the connection on instead of refusing it. Pure: no I/O, no clock.
//!
//! A message is found guilty in three steps, and any acknowledgement of it acquits it:
//!
//! 1. Three sessions in a row are closed by the other side with the same oldest message unanswered. From then on
//!    messages go one at a time, each after the answer to the one before, until as many went as were unanswered: the
//!    guilty one need not be the oldest, where acknowledgements are lost with the connection.
//! 2. One that the connection is closed on when it is alone, and that was the oldest unanswered in the three sessions
//!    before it too, is accused: it is withheld, and the next is sent alone, to be a witness. One that the connection is
//!    closed on is no witness, but accused as well, and the one after it is tried.
//! 3. Once a witness is acknowledged, the first accused is sent again alone in that very session. Closed on it for the
//!    fifth time, and so right after it took another, the other side is believed: the message is given up. In the
//!    sessions that it takes to be sure of the other accused the witness is sent again: repeated, which receivers know
//!    by its id, and no message that comes later has to go before its turn.
//!
//! A device whose message was given up is [`Guilty`] for the rest of the run, and where one of its messages is unanswered
//! it goes faster: one session is enough to send one at a time, the first close on it alone to accuse it, and the third
//! close to give it up. It takes a witness as ever.
//!
//! So whatever closes on everything, for however long, costs nothing: there is no witness; and where the other side
//! recovers just for the witness, the accused are acknowledged right after. All are let go when a session is closed on
//! nothing, or on a message that was a witness before: that is no poison's doing. A row of [`ACCUSED`] that it closes on
//! looks like everything; each time it does, the next row may be twice as long.
//!
//! The price is order: where the other side recovers just for the witness, that one comes before the accused, on which
//! it had closed until then.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use crate::model::Id;

/// How many sessions in a row are closed on the same oldest message before messages go one at a time.
const ROW: u32 = 3;

/// How many messages in a row are accused, and so withheld, before all are let go: at first, and at most.
const ACCUSED: (usize, usize) = if cfg!(test) { (4, 8) } else { (16, 256) };

/// How many devices are remembered as guilty.
const GUILTY_MAX: usize = 16;

/// The devices whose messages were found out last.
#[derive(Debug, Default)]
pub(super) struct Guilty(VecDeque<Box<str>>);

impl Guilty {
    /// This device is one.
    pub(super) fn note(&mut self, device: &str) {
        self.0.retain(|other| **other != *device);
        self.0.push_back(device.into());
        if self.0.len() > GUILTY_MAX {
            self.0.pop_front();
        }
    }

    /// Whether it is.
    pub(super) fn has(&self, device: &str) -> bool {
        self.0.iter().any(|other| **other == *device)
    }
}

/// What is to be sent next, alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// What is next in the queue, and not withheld.
    Next,
    /// This one, which was acknowledged before.
    Witness(Id),
    /// This one, which is accused.
    Accused(Id),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing yet.
    Nothing,
    /// Messages go one at a time from now on: this one was unanswered three times.
    OneByOne(Id),
    /// The other side will not take this message, and takes others.
    Poison(Id),
    /// It is none of the messages that were unanswered.
    Acquitted,
    /// It is none of them, and gap records, which do not go one by one, were unanswered each time.
    Gaps,
    /// The other side closes on whatever it is sent.
    Everything,
}

#[derive(Clone, Copy, Debug)]
struct Suspect {
    id: Id,
    /// How many sessions in a row were closed with it the oldest unanswered.
    closes: u32,
    /// Whether its device is guilty.
    known: bool,
}

/// How many sessions in a row it takes.
fn row(known: bool) -> u32 {
    if known { 1 } else { ROW }
}

/// The state of the hunt.
#[derive(Debug)]
pub(super) struct Hunt {
    /// The oldest message that was unanswered when the last session was closed.
    suspect: Option<Suspect>,
    /// In how many sessions in a row a gap record was unanswered too.
    gaps: u32,
    /// How many messages still go one at a time.
    file: usize,
    /// What the connection was closed on when it was alone, in the order of the queue, and how many it may be.
    accused: VecDeque<Suspect>,
    most: usize,
    /// The last that was acknowledged when it was alone, and whether that was in this session.
    witness: Option<Id>,
    witnessed: bool,
    /// What this session was given alone and has not answered, and whether its device is guilty.
    alone: Option<Id>,
    known: bool,
}

impl Default for Hunt {
    fn default() -> Self {
        Self {
            suspect: None,
            gaps: 0,
            file: 0,
            accused: VecDeque::new(),
            most: ACCUSED.0,
            witness: None,
            witnessed: false,
            alone: None,
            known: false,
        }
    }
}

impl Hunt {
    /// Whether messages go one at a time, and no gap record.
    pub(super) fn is_on(&self) -> bool {
        self.file > 0 || !self.accused.is_empty()
    }

    /// Whether they do, and none is accused.
    pub(super) fn is_filing(&self) -> bool {
        self.file > 0 && self.accused.is_empty()
    }

    /// Whether this session has acknowledged a message that went alone. There are as many such sessions as messages that
    /// go one at a time, and a few for each that is accused.
    pub(super) fn has_learned(&self) -> bool {
        self.witnessed
    }

    /// What may have to be sent again.
    pub(super) fn witness(&self) -> Option<Id> {
        self.witness
    }

    /// What is to be sent next, alone.
    pub(super) fn turn(&self) -> Turn {
        match (self.accused.front(), self.witness) {
            (Some(accused), _) if self.witnessed => Turn::Accused(accused.id),
            (Some(_), Some(witness)) => Turn::Witness(witness),
            _ => Turn::Next,
        }
    }

    /// Whether this message is accused, and so not sent before its turn.
    pub(super) fn withholds(&self, id: Id) -> bool {
        self.accused.iter().any(|accused| accused.id == id)
    }

    /// A session begins.
    pub(super) fn opened(&mut self) {
        (self.alone, self.witnessed) = (None, false);
    }

    /// This message is sent, and nothing else until it is answered. `known` tells whether its device is guilty.
    pub(super) fn alone(&mut self, id: Id, known: bool) {
        (self.alone, self.known) = (Some(id), known);
    }

    /// The other side has taken this message.
    pub(super) fn acknowledged(&mut self, id: Id) -> Finding {
        if self.alone == Some(id) {
            (self.witness, self.witnessed) = (Some(id), true);
        }
        self.most = ACCUSED.0;
        self.settled(id)
    }

    /// This message has been answered in another way, or is gone.
    pub(super) fn settled(&mut self, id: Id) -> Finding {
        if self.suspect.is_some_and(|suspect| suspect.id == id) {
            self.suspect = None;
        }
        let was_alone = self.alone.take_if(|alone| *alone == id).is_some();
        if self.accused.is_empty() {
            self.file -= usize::from(was_alone && self.file > 0);
        }
        let before = self.accused.len();
        self.accused.retain(|accused| accused.id != id);
        let was_accused = self.accused.len() < before;
        if self.is_on() || !(was_accused || was_alone) { Finding::Nothing } else { self.over() }
    }

    /// Nothing is left that could be sent. Where nothing is accused, nothing is to be found.
    pub(super) fn idle(&mut self) -> Finding {
        if self.is_filing() { self.over() } else { Finding::Nothing }
    }

    fn over(&mut self) -> Finding {
        let gaps = self.gaps;
        self.let_go();
        if gaps >= ROW { Finding::Gaps } else { Finding::Acquitted }
    }

    /// Begins anew.
    fn let_go(&mut self) {
        *self = Self { most: self.most, ..Self::default() };
    }

    /// The other side has closed the session, with `unanswered` messages of which `oldest` was sent first, and with a
    /// gap record or without. `known` tells whether one of them is of a guilty device.
    pub(super) fn closed(
        &mut self,
        oldest: Option<Id>,
        unanswered: usize,
        gap: bool,
        known: bool,
    ) -> Finding {
        if self.is_on() { self.closed_on_one() } else { self.closed_on_many(oldest, unanswered, gap, known) }
    }

    /// The session has ended in another way, which says nothing of any message, and breaks the row.
    pub(super) fn ended(&mut self) {
        (self.suspect, self.gaps, self.alone) = (None, 0, None);
    }

    fn closed_on_many(&mut self, oldest: Option<Id>, unanswered: usize, gap: bool, known: bool) -> Finding {
        self.gaps = if gap { self.gaps + 1 } else { 0 };
        let closes = match oldest {
            Some(id) => self.count(id),
            None => {
                self.suspect = None;
                if self.gaps < ROW {
                    return Finding::Nothing;
                }
                self.gaps = 0;
                return Finding::Gaps;
            }
        };
        match oldest {
            Some(id) if closes >= row(known) => {
                self.file = unanswered.max(1);
                Finding::OneByOne(id)
            }
            _ => Finding::Nothing,
        }
    }

    fn closed_on_one(&mut self) -> Finding {
        let id = match self.alone.take() {
            Some(id) if self.witness != Some(id) => id,
            // Closed on nothing, or on what it takes otherwise: no message is to blame.
            _ => {
                self.let_go();
                return Finding::Nothing;
            }
        };
        if let Some(accused) = self.accused.iter_mut().find(|accused| accused.id == id) {
            accused.closes += 1;
            if accused.closes <= row(accused.known) + 1 {
                return Finding::Nothing;
            }
            self.accused.retain(|accused| accused.id != id);
            // Where one is, more may be: the next go one at a time still.
            self.file = self.file.max(1);
            return Finding::Poison(id);
        }
        let (closes, known) = (self.count(id), self.known);
        if self.accused.is_empty() && closes <= ROW && !known {
            return Finding::Nothing;
        }
        self.suspect = None;
        self.accused.push_back(Suspect { id, closes, known });
        if self.accused.len() < self.most { Finding::Nothing } else { self.everything() }
    }

    /// It closes on everything, or more is withheld than can be.
    pub(super) fn everything(&mut self) -> Finding {
        self.most = (2 * self.most).min(ACCUSED.1);
        self.let_go();
        Finding::Everything
    }

    /// Counts a session that was closed with this message the oldest unanswered.
    fn count(&mut self, id: Id) -> u32 {
        let before = self.suspect.filter(|suspect| suspect.id == id).map_or(0, |suspect| suspect.closes);
        self.suspect = Some(Suspect { id, closes: before + 1, known: false });
        before + 1
    }
}
