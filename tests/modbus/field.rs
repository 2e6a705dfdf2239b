//! What is met in the field, by scripted devices: adapters that echo and hand over in pieces, gateways that hang up, and
//! devices that do what the specification does not say.

use super::*;

/// Serves RTU on a terminal: what is to come for each request, each piece after so many milliseconds.
fn in_pieces(pty: &Pty, mut answer: impl FnMut(&[u8]) -> Vec<(u64, Vec<u8>)> + Send + 'static) {
    let mut device = pty.device().unwrap();
    thread::spawn(move || {
        let mut request = [0; 8];
        while device.read_exact(&mut request).is_ok() {
            for (after, piece) in answer(&request) {
                thread::sleep(Duration::from_millis(after));
                if device.write_all(&piece).is_err() {
                    return;
                }
            }
        }
    });
}

/// Two registers of one device that are not read together.
fn two(rest: &str) -> String {
    let one = |metric: &str, address: u8| {
        format!("{{ unit_id = 1, device = 'm', metric = '{metric}', address = {address} }}")
    };
    format!("every = '20ms'\n{rest}\nregisters = [{}, {}]", one("a", 10), one("b", 20))
}

fn both() -> Frame {
    vec![("m".into(), "a".into(), Value::Int(100)), ("m".into(), "b".into(), Value::Int(200))]
}

#[tokio::test]
async fn an_answer_in_two_pieces_behind_an_echo_or_a_stray_byte_is_whole() {
    // An adapter hands over what it has every 16 ms, and a busy machine now and then later than is waited for.
    for (echo, cut) in [(true, 3), (false, 6)] {
        let (pty, context) = (Pty::open().unwrap(), context(&Ports::default()));
        in_pieces(&pty, move |request| {
            let (before, answer) = (if echo { request } else { &[0xFF] }, tenfold(request));
            vec![(0, [before, &answer[..cut]].concat()), (16, answer[cut..].to_vec())]
        });
        let mut source =
            Modbus::open(&on(&pty, &two("timeout = '500ms'\nretries = 2")), &context).await.unwrap();
        for _ in 0..5 {
            assert_eq!(round(&mut source).await.unwrap(), both());
        }
    }
}

#[tokio::test]
async fn a_damaged_echo_is_no_damaged_answer() {
    let (pty, context) = (Pty::open().unwrap(), context(&Ports::default()));
    in_pieces(&pty, |request| {
        let mut echo = request.to_vec();
        echo[5] ^= 0x40;
        vec![(0, echo), (80, tenfold(request))]
    });
    let mut source = Modbus::open(&on(&pty, &two("timeout = '500ms'\nretries = 2")), &context).await.unwrap();
    for _ in 0..5 {
        assert_eq!(round(&mut source).await.unwrap(), both());
    }
}

#[tokio::test]
async fn a_connection_that_is_closed_at_the_next_request_is_made_anew_without_a_word() {
    let mut answered = false;
    let port = serve(move |request, stream| {
        answered = !answered;
        answered && stream.write_all(&reply(request, &[0, 100])).is_ok()
    });
    let context = context(&Ports::default());
    let toml = "every = '20ms'\nregisters = [{ unit_id = 1, device = 'meter-1', metric = 'a', address = 0 }]";
    let mut source = Modbus::open(&over(port, toml), &context).await.unwrap();
    // The next request is on its way when the other end closes.
    assert_eq!(rounds(&mut source, 10).await["meter-1"], 10);
    assert_eq!(refused(&context, Refusal::NoAnswer), 0);
}

#[tokio::test]
async fn a_gateway_that_hangs_up_when_a_dead_device_is_asked_for_keeps_the_others() {
    for framing in ["tcp", "rtu"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut request = vec![0; if framing == "tcp" { 12 } else { 8 }];
                while stream.read_exact(&mut request).is_ok() {
                    let (unit, register) =
                        if framing == "tcp" { (request[6], request[9]) } else { (request[0], request[3]) };
                    let value = [0, 100 * unit + u8::from(register == 10)];
                    let answer = match framing {
                        "tcp" => reply(&request, &value),
                        _ => sealed(&[&[unit, 3, 2][..], &value].concat()),
                    };
                    if unit == 2 || stream.write_all(&answer).is_err() {
                        break;
                    }
                }
            }
        });
        let context = context(&Ports::default());
        let units = [1, 2].map(|unit| {
            format!("{{ unit_id = {unit}, device = 'meter-{unit}', metric = 'a', address = 0 }}")
        });
        // The dead one stands before one that is alive.
        let toml = format!(
            "every = '20ms'\ntimeout = '300ms'\nframing = '{framing}'\nregisters = [{}, {}]",
            units[1], units[0]
        );
        let mut source = Modbus::open(&over(port, &toml), &context).await.unwrap();
        assert_eq!(rounds(&mut source, 30).await["meter-1"], 30, "{framing}");
        let vain = refused(&context, Refusal::NoAnswer);
        assert!((1..20).contains(&vain), "{framing}: it is asked ever more rarely: {vain}");
    }
}

#[tokio::test]
async fn long_answers_that_lie_there_late_do_not_make_a_connection_unreadable() {
    let mut held = Vec::new();
    let mut count = 0;
    let port = serve(move |request, stream| {
        count += 1;
        let answer = reply(request, &[b'x'; 250]);
        if count > 2 {
            return stream.write_all(&answer).is_ok();
        }
        held.extend(answer);
        if count == 2 {
            thread::sleep(Duration::from_millis(150));
            return stream.write_all(&held).is_ok();
        }
        true
    });
    let context = context(&Ports::default());
    let toml = "every = '20ms'\ntimeout = '100ms'\nretries = 0\n\
                registers = [{ unit_id = 1, device = 'm', metric = 'a', address = 0, type = 'string', length = 125 }]";
    let mut source = Modbus::open(&over(port, toml), &context).await.unwrap();
    let found = round(&mut source).await.unwrap();
    assert_eq!(found, [("m".into(), "a".into(), Value::Text("x".repeat(250).into()))]);
    assert_eq!(refused(&context, Refusal::Late), 2);
}

#[tokio::test]
async fn a_gap_at_which_a_device_fails_or_falls_silent_does_not_cost_its_neighbours() {
    for exception in [Some(4), None] {
        let (pty, context) = (Pty::open().unwrap(), context(&Ports::default()));
        let (tell, told) = std::sync::mpsc::channel();
        in_pieces(&pty, move |request| {
            let (first, count) = (request[3], request[5]);
            tell.send((first, count)).unwrap();
            // It does not have 13.
            match (exception, (first..first + count).contains(&13)) {
                (_, false) => vec![(0, tenfold(request))],
                (Some(code), true) => vec![(0, sealed(&[request[0], 0x80 | request[1], code]))],
                (None, true) => Vec::new(),
            }
        });
        let one = |metric: &str, address: u8| {
            format!("{{ unit_id = 1, device = 'm', metric = '{metric}', address = {address} }}")
        };
        let toml = format!(
            "every = '20ms'\ntimeout = '50ms'\nretries = 0\nmax_gap = 5\nregisters = [{}, {}, {}]",
            one("z", 2),
            one("a", 10),
            one("b", 15)
        );
        let mut source = Modbus::open(&on(&pty, &toml), &context).await.unwrap();
        let mut metrics = BTreeSet::new();
        for _ in 0..200 {
            metrics.extend(round(&mut source).await.unwrap().into_iter().map(|(_, metric, _)| metric));
            if metrics.len() == 3 {
                break;
            }
        }
        let asked: Vec<_> = told.try_iter().collect();
        assert_eq!(metrics.len(), 3, "{exception:?}: {asked:?}");
        let vain = asked.iter().filter(|asked| **asked == (10, 6)).count();
        assert!(vain <= 3, "{exception:?}: {asked:?}");
    }
}

#[tokio::test]
async fn what_a_device_refused_while_it_started_is_read_together_again_later() {
    let (pty, context) = (Pty::open().unwrap(), context(&Ports::default()));
    let (tell, told) = std::sync::mpsc::channel();
    let mut starting = 20;
    script(&pty, move |request| {
        tell.send((request[3], request[5])).unwrap();
        if starting > 0 {
            starting -= 1;
            return sealed(&[request[0], 0x80 | request[1], 2]);
        }
        tenfold(request)
    });
    let registers = [10, 11, 12, 13].map(|address| {
        format!("{{ unit_id = 1, device = 'm', metric = 'm{address}', address = {address} }}")
    });
    let toml = format!("every = '20ms'\nregisters = [{}]", registers.join(", "));
    let mut source = Modbus::open(&on(&pty, &toml), &context).await.unwrap();
    round(&mut source).await.unwrap();
    for _ in 0..3 {
        assert_eq!(round(&mut source).await.unwrap().len(), 4);
    }
    let asked: Vec<_> = told.try_iter().collect();
    assert!(asked.ends_with(&[(12, 1), (13, 1)]), "as it refused them together: {asked:?}");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(700)).await;
    tokio::time::resume();
    for _ in 0..3 {
        assert_eq!(round(&mut source).await.unwrap().len(), 4);
    }
    let asked: Vec<_> = told.try_iter().collect();
    assert!(asked.ends_with(&[(10, 4), (10, 4)]), "{asked:?}");
}

#[tokio::test]
async fn an_answer_with_an_id_that_was_never_sent_is_not_taken_for_a_late_one() {
    let port = serve(|request, stream| {
        let mut answer = reply(request, &[0, 100]);
        // Far from all that were sent.
        answer[0] ^= 0x80;
        stream.write_all(&answer).is_ok()
    });
    let context = context(&Ports::default());
    let toml = "every = '20ms'\ntimeout = '50ms'\nretries = 1\nregisters = [{ unit_id = 1, metric = 'a', address = 0 }]";
    let mut source = Modbus::open(&over(port, toml), &context).await.unwrap();
    let look = tokio::time::timeout(Duration::from_millis(500), source.next()).await;
    assert!(look.is_err(), "nothing is read of it");
    assert_eq!(refused(&context, Refusal::Late), 0);
    assert!(refused(&context, Refusal::Checksum) >= 2);
}

#[tokio::test]
async fn what_waited_for_a_doubt_is_read_in_the_same_round_once_the_device_has_said_something_else() {
    let (pty, context) = (Pty::open().unwrap(), context(&Ports::default()));
    let (tell, told) = std::sync::mpsc::channel();
    let mut first = true;
    in_pieces(&pty, move |request| {
        tell.send(request[3]).unwrap();
        // One answer is lost on the line.
        if std::mem::take(&mut first) { Vec::new() } else { vec![(0, tenfold(request))] }
    });
    let one = |metric: &str, address: u8, kind: &str| {
        format!("{{ unit_id = 1, device = 'm', metric = '{metric}', address = {address}, type = '{kind}' }}")
    };
    let toml = format!(
        "every = '20ms'\ntimeout = '300ms'\nretries = 1\nregisters = [{}, {}, {}]",
        one("a", 1, "u16"),
        one("b", 5, "u16"),
        one("c", 9, "u32")
    );
    let mut source = Modbus::open(&on(&pty, &toml), &context).await.unwrap();
    let mut metrics: Vec<_> =
        round(&mut source).await.unwrap().into_iter().map(|(_, metric, _)| metric).collect();
    metrics.sort();
    assert_eq!(metrics, ["a", "b", "c"]);
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [1, 1, 9, 5]);
}

#[tokio::test]
async fn an_answer_that_is_late_by_many_timeouts_is_not_taken_for_anothers_where_there_is_something_else_to_ask()
 {
    let (pty, context) = (Pty::open().unwrap(), context(&Ports::default()));
    let mut first = true;
    in_pieces(&pty, move |request| {
        let after = if std::mem::take(&mut first) { 675 } else { 0 };
        vec![(after, tenfold(request))]
    });
    let one = |metric: &str, address: u8, kind: &str| {
        format!("{{ unit_id = 1, device = 'm', metric = '{metric}', address = {address}, type = '{kind}' }}")
    };
    let toml = format!(
        "every = '20ms'\ntimeout = '90ms'\nretries = 0\nregisters = [{}, {}, {}]",
        one("a", 1, "u16"),
        one("b", 5, "u16"),
        one("c", 9, "u32")
    );
    let mut source = Modbus::open(&on(&pty, &toml), &context).await.unwrap();
    let mut seen = BTreeMap::new();
    while seen.len() < 3 {
        seen.extend(round(&mut source).await.unwrap().into_iter().map(|(_, metric, value)| (metric, value)));
        let right = [("a", 10), ("b", 50), ("c", (90 << 16) + 100)];
        assert!(
            right
                .iter()
                .all(|(metric, value)| seen.get(*metric).is_none_or(|found| *found == Value::Int(*value))),
            "{seen:?}"
        );
    }
    assert!(refused(&context, Refusal::Late) > 0);
}

#[tokio::test]
async fn nor_where_the_device_refuses_all_else_or_fell_silent_at_it() {
    for (refuses, late) in [(true, 850), (true, 900), (false, 1050), (false, 1100)] {
        let (pty, context) = (Pty::open().unwrap(), context(&Ports::default()));
        let mut asked = 0;
        in_pieces(&pty, move |request| {
            let is_else = request[3] == 9;
            // Answers in order, and stalls once: where it says no values of the third, that is told long before.
            let stalls = if refuses { request[3] == 1 } else { is_else };
            asked += u32::from(stalls);
            let after = if stalls && asked == 4 { late } else { 0 };
            let answer = if is_else && refuses { sealed(&[1, 0x83, 2]) } else { tenfold(request) };
            vec![(after, answer)]
        });
        let one = |metric: &str, address: u8, kind: &str| {
            format!(
                "{{ unit_id = 1, device = 'm', metric = '{metric}', address = {address}, type = '{kind}' }}"
            )
        };
        let toml = format!(
            "every = '250ms'\ntimeout = '100ms'\nretries = 1\nregisters = [{}, {}, {}]",
            one("a", 1, "u16"),
            one("b", 5, "u16"),
            one("c", 9, "u32")
        );
        let mut source = Modbus::open(&on(&pty, &toml), &context).await.unwrap();
        let mut seen = 0;
        while seen < 24 {
            for (_, metric, value) in round(&mut source).await.unwrap() {
                let right = [("a", 10), ("b", 50), ("c", (90 << 16) + 100)];
                let right = right.into_iter().find(|(name, _)| *name == metric).unwrap().1;
                assert_eq!(value, Value::Int(right), "{metric}, {late} ms late, refuses: {refuses}");
                seen += 1;
            }
        }
        assert!(refused(&context, Refusal::Late) > 0, "{late} ms late, refuses: {refuses}");
    }
}
