package main

// The suites that check a queue's scripts as a whole, besides the regression test
// of the rule.
const (
	scriptModel = "internal/script:TestModel"
	scriptTable = "internal/script:TestScripts"
	queueWalks  = "internal/queuemodel:TestTheScriptsDoWhatTheModelDoes"
	lockTable   = "lock:TestScripts"
	lockWalks   = "lock:TestScriptsDoWhatTheModelDoes"
)

// scripts are the tests of a control of a queue's scripts.
func scripts(own ...string) []string {
	var out []string
	for _, name := range own {
		out = append(out, "internal/script:"+name)
	}
	return append(out, scriptModel, queueWalks)
}

var controls = []Control{
	// The queue's scripts: docs/queue.md §2 and §5.
	{
		"gate-forgets-itself", "the gate lets through the request that has the turn", "internal/script/claim.lua",
		"pass = h == id else", "pass = false else", scripts("TestGateRecognisesItself"),
	},
	{
		"gate-ignores-turn", "the gate stops all others while a request has the turn", "internal/script/claim.lua",
		"pass = h == id else", "pass = true else", scripts("TestGateStopsASecondDelivery"),
	},
	{
		"gate-ignores-line", "the gate stops who comes while others stand in line", "internal/script/claim.lua",
		"pass = not oldest(lock)", "pass = true",
		[]string{scriptModel, queueWalks},
	},
	{
		"promote-regardless", "promote does nothing while a request has the turn", "internal/script/prelude.lua",
		"  if turn(lock) then return 0 end", "  turn(lock)", scripts("TestPromoteDoesNothingWhileHeld"),
	},
	{
		"promote-without-turn", "who is promoted has the turn at once", "internal/script/prelude.lua",
		"      call('HSET', held, lock, id)\n", "", scripts("TestGateLetsThePromotedPassTheParked"),
	},
	{
		"promote-silently", "promote pushes a token", "internal/script/prelude.lua",
		"      token()\n      return 1", "      return 1", scripts("TestPromotePushesToken"),
	},
	{
		"promote-newest", "the oldest in line is promoted", "internal/script/prelude.lua",
		"call('ZRANGEBYLEX', parked, '[' .. lock .. '\\0', '(' .. lock .. '\\1', 'LIMIT', 0, 1)[1]",
		"call('ZREVRANGEBYLEX', parked, '(' .. lock .. '\\1', '[' .. lock .. '\\0', 'LIMIT', 0, 1)[1]",
		[]string{scriptModel, queueWalks, "delayq:TestParkedRequestsLeaveInOrder"},
	},
	{
		"promotion-unbounded", "one promotion buries a bounded number", "internal/script/prelude.lua",
		"  for _ = 1, 32 do", "  for _ = 1, 3200 do",
		[]string{"internal/script:TestPromotionBound"},
	},
	{
		"expiry-clears-turn", "a request whose lease ended keeps its turn", "internal/script/claim.lua",
		"    put(id, s)\n    call('LPUSH', ready, id)\n", "    put(id, s)\n    call('LPUSH', ready, id)\n    call('HDEL', held, s.lock)\n", scripts("TestLeaseExpiryKeepsTurn"),
	},
	{
		"requeue-clears-turn", "a request that is handed back keeps its turn", "internal/script/requeue.lua",
		"    call('LPUSH', ready, id)\n", "    call('LPUSH', ready, id)\n    call('HDEL', held, s.lock)\n", scripts("TestRequeueKeepsTurn"),
	},
	{
		"park-keeps-turn", "a parked request has no turn", "internal/script/park.lua",
		"if call('HGET', held, s.lock) == id then call('HDEL', held, s.lock) end", "", scripts("TestParkClearsTurnWithoutPromoting"),
	},
	{
		"park-promotes", "park promotes nobody", "internal/script/park.lua",
		"if call('HGET', held, s.lock) == id then call('HDEL', held, s.lock) end", "leave(id, s)", scripts("TestParkClearsTurnWithoutPromoting"),
	},
	{
		"park-mints-anew", "who is parked again keeps its place in line", "internal/script/park.lua",
		"line(id, s, now + tonumber(ARGV[3]))", "s.seq = 0\nmint(s)\nline(id, s, now + tonumber(ARGV[3]))",
		[]string{scriptModel, queueWalks},
	},
	{
		"cancel-keeps-turn", "cancel frees the turn", "internal/script/cancel.lua",
		"leave(id, s)\n", "", scripts("TestCancelFreesTurn"),
	},
	{
		"nack-promotes-nobody", "nack promotes the next", "internal/script/nack.lua",
		"if ARGV[6] ~= '1' then leave(id, s) end", "if ARGV[6] ~= '1' and call('HGET', held, s.lock) == id then call('HDEL', held, s.lock) end", scripts("TestNackAndBuryPromote"),
	},
	{
		"bury-promotes-nobody", "bury promotes the next", "internal/script/bury.lua",
		"leave(id, s)\n", "call('HDEL', held, s.lock)\n", scripts("TestNackAndBuryPromote"),
	},
	{
		"ack-promotes-nobody", "ack promotes the next", "internal/script/prelude.lua",
		"do leave(l[1], l[2]) end", "do call('HDEL', held, l[2].lock) end", scripts("TestAckThatPromotesPushesToken"),
	},
	{
		"strict-nack-steps-out", "in strict order a failed request keeps the turn", "internal/script/nack.lua",
		"if ARGV[6] ~= '1' then leave(id, s) end", "leave(id, s)", scripts("TestStrictNackBlocksTheLine"),
	},
	{
		"any-token", "only the holder of the lease may settle", "internal/script/prelude.lua",
		"  if s.token ~= tok then return 0 end\n", "", scripts("TestLateParkIsStale"),
	},
	{
		"any-place", "only a leased request can be settled", "internal/script/prelude.lua",
		"  if s.place == 'l' then return 1 end\n  return 2", "  return 1",
		[]string{scriptModel, queueWalks},
	},
	{
		"extend-any-token", "only the holder of the lease may extend it", "internal/script/extend.lua",
		"s.place == 'l' and s.token == ARGV[i + 1]", "s.place == 'l'",
		[]string{scriptTable},
	},
	{
		"line-by-text", "the line of a lock is in the order of numbers", "internal/script/prelude.lua",
		"string.char(48 + #seq) .. seq", "'1' .. seq",
		[]string{scriptModel},
	},
	{
		"bytes-unbounded", "a claim takes no more after the first MiB", "internal/script/claim.lua",
		"      if i > k or bytes >= enough then", "      if i > k then", scripts("TestBytesBound"),
	},
	{
		"reads-in-vain", "a claim reads little that it does not take", "internal/script/claim.lua",
		"math.max(math.min(4 * step, 32, math.floor((enough - size) / largest)), 1)", "128",
		[]string{"internal/script:TestClaimReadsWhatItTakes"},
	},
	{
		"due-bytes-unbounded", "of what is due a claim takes no more after the first MiB", "internal/script/claim.lua",
		"  if size > enough then return false end\n", "", scripts("TestBytesBound"),
	},
	{
		"due-past-the-late", "what is due is leased after what a worker left behind", "internal/script/claim.lua",
		"if not (first and first <= now) and straight(", "if straight(", scripts("TestDueRequestsKeepTheirOrder"),
	},
	{
		"due-past-ready", "what is due is leased after what is ready", "internal/script/claim.lua",
		"if #ids > n or call('EXISTS', ready) == 1 then", "if #ids > n then", scripts("TestDueRequestsKeepTheirOrder"),
	},
	{
		"due-past-the-gate", "what is due and has a lock passes the gate", "internal/script/claim.lua",
		"'^d[^|]*|(%d*)|(%d+)$')", "'^d[^|]*|(%d*)|(%d+)')",
		[]string{scriptModel, queueWalks},
	},
	{
		"due-and-unknown", "that more is due is known after a claim", "internal/script/claim.lua",
		" or head and head <= now\n", "\n", scripts("TestClaimBringsWhatItNeeds")[:2],
	},
	{
		"push-by-body", "a finished request is remembered by push", "internal/script/push.lua",
		"recent[i] + earlier[i] > 0 and 2 or 1", "1", scripts("TestPushAfterDoneStaysDone"),
	},
	{
		"push-asks-half", "push asks both halves of the memory", "internal/script/push.lua",
		"recent[i] + earlier[i] > 0", "recent[i] > 0", scripts("TestFinishedIdIsRememberedForTheWindow"),
	},
	{
		"schedule-by-body", "a finished request is remembered by schedule and parknew", "internal/script/prelude.lua",
		"return call('HEXISTS', state, id) == 1 or recalled(id) end", "return call('HEXISTS', state, id) == 1 end",
		scripts("TestPushAfterCancelStaysCancelled"),
	},
	{
		"recalled-asks-half", "schedule, parknew and who settles ask both halves of the memory", "internal/script/prelude.lua",
		" or call('SISMEMBER', past, id) == 1", "",
		[]string{scriptTable, scriptModel},
	},
	{
		"mine-forgets", "who acknowledges again is told that it has", "internal/script/prelude.lua",
		"    if recalled(id) then return 2 end\n", "",
		[]string{scriptTable, scriptModel},
	},
	{
		"ack-forgets", "an acknowledged request is remembered", "internal/script/prelude.lua",
		"if window > 0 then call('SADD', gone, unpack(ids, from, to)) end", "", scripts("TestPushAfterDoneStaysDone"),
	},
	{
		"cancel-forgets", "a cancelled request is remembered", "internal/script/cancel.lua",
		"forget({id}, tonumber(ARGV[1]))", "forget({id}, 0)", scripts("TestPushAfterCancelStaysCancelled"),
	},
	{
		"lot-with-locks", "what has a lock is leased by itself", "internal/script/claim.lua",
		"if plain and taken > 1 then", "if taken > 1 then", scripts("TestLot")[:2],
	},
	{
		"lot-not-divided", "a lot is divided before a request leaves it other than by its acknowledgement", "internal/script/prelude.lua",
		"    for tok in pairs(toks) do divide(tok) end\n", "", scripts("TestLotIsDivided")[:2],
	},
	{
		"lot-extended-whole", "a lot is divided before a lease is extended", "internal/script/extend.lua",
		"    if not call('ZSCORE', leased, id) then divide(s.token) end\n", "", scripts("TestLotIsDivided")[:2],
	},
	{
		"lot-divided-blindly", "only what is still leased gets a lease of its own", "internal/script/prelude.lua",
		"    if v and string.sub(v, 1, #head) == head then\n      own", "    if v then\n      own", scripts("TestLotAcknowledgedAgain")[:1],
	},
	{
		"done-mixed-up", "each lease is named once to those that end it", "listq/queue.go",
		"	slices.SortStableFunc(done, ", "	slices.SortStableFunc([]*Delivery{}, ",
		[]string{"listq:TestDoneOfOneLeaseGoesTogether"},
	},
	{
		"lot-stays", "a lot ends with its last request", "internal/script/prelude.lua",
		"<= 0 then drop(tok) end", "< 0 then drop(t) end", scripts("TestLotEndsWithItsLast")[:2],
	},
	{
		"lot-ends-early", "a lot does not end before its last request", "internal/script/prelude.lua",
		"<= 0 then drop(tok) end", "<= 1 then drop(t) end",
		[]string{scriptModel},
	},
	{
		"lot-never-lapses", "a lot whose lease has ended comes back", "internal/script/claim.lua",
		"if room > 0 and string.byte(m, 1) == 0 then", "if false then", scripts("TestLotsLapse"),
	},
	{
		"lot-taken-for-an-id", "a lot that the claim has no room for is left to the next", "internal/script/claim.lua",
		"if string.byte(late[i], 1) ~= 0 then lapse", "if true then lapse", scripts("TestLotsLapseBounded")[:1],
	},
	{
		"lots-unbounded", "one claim divides a bounded number of lots", "internal/script/claim.lua",
		"if room > 0 and string", "if string", scripts("TestLotsLapseBounded")[:1],
	},
	{
		"acked-again-unseen", "an acknowledgement that was sent before looks at the states", "internal/script/claim.lua",
		"else once = ARGV[12] == '1' end", "else once = true end", scripts("TestLotAcknowledgedAgain")[:1],
	},
	{
		"claim-again-unseen", "so does a claim that is sent again", "internal/script/claim.lua",
		"if ctr == c then answered, n = ids, 0 else once", "if ctr == c then answered, n = ids, 0 end do once", scripts("TestLotAcknowledgedAgain")[:1],
	},
	{
		"turn-early", "the memory is not turned over before the window has passed", "internal/script/claim.lua",
		"elseif now - turned >= window then", "else", scripts("TestFinishedIdIsRememberedForTheWindow")[:2],
	},
	{
		"turn-unstamped", "when the memory was turned over is written down", "internal/script/claim.lua",
		"      call('RENAME', gone, past)\n      call('HSET', meta, 'turned', whole(now))\n", "      call('RENAME', gone, past)\n",
		scripts("TestFinishedIdIsRememberedForTheWindow")[:2],
	},
	{
		"turn-drops-both", "what was finished since the last turn outlives the next", "internal/script/claim.lua",
		"      call('RENAME', gone, past)\n", "      call('UNLINK', gone)\n", scripts("TestFinishedIdIsRememberedForTheWindow"),
	},
	{
		"turn-never", "a finished request is remembered for a while only", "internal/script/claim.lua",
		"elseif now - turned >= window then", "elseif false then", scripts("TestFinishedIdCanBeUsedAgain")[:2],
	},
	{
		"turn-keeps-past", "a turn drops what the last one kept, though nothing was finished since", "internal/script/claim.lua",
		"    call('UNLINK', past)\n", "",
		[]string{"internal/script:TestFinishedIdCanBeUsedAgain", scriptTable},
	},
	{
		"turn-leaves-a-key", "an idle queue keeps no time of a turn", "internal/script/claim.lua",
		"    elseif turned > 0 then\n      call('HDEL', meta, 'turned')\n", "",
		[]string{"internal/script:TestFinishedIdCanBeUsedAgain", scriptTable},
	},
	{
		"turn-in-the-future", "a clock that was set back holds up no turn", "internal/script/claim.lua",
		"if turned > now then -- the clock was set back", "if false then",
		[]string{scriptTable},
	},
	{
		"claim-unrecorded", "a claim that is sent again answers the same", "internal/script/claim.lua",
		"  call('SET', last, table.concat(record, '\\n'), 'PX', math.max(lease, 300000))\n", "", scripts("TestClaimSentAgain"),
	},
	{
		"old-claim-claims", "a claim older than the last does nothing", "internal/script/claim.lua",
		"  if ctr < c then", "  if false then", scripts("TestClaimSentAgain"),
	},
	{
		"claim-by-body", "claim takes only what is ready", "internal/script/claim.lua",
		"match(v, '^r[^|]*|(%d*)|(.*)$')", "match(v, '^%a[^|]*|(%d*)|(.*)$')", scripts("TestRescheduledIdSkippedInReady"),
	},
	{
		"claim-eats-token", "a claim leaves a token if ready is not empty", "internal/script/claim.lua",
		"if more then token() end\n", "", scripts("TestClaimLeavesToken"),
	},
	{
		"refused-without-memory", "what is there is worked off while Redis is out of memory", "internal/script/prelude.lua",
		"local function begin() call('HDEL', meta, '') end", "local function begin() end",
		[]string{"internal/script:TestOutOfMemory", "listq:TestLeasesAreExtendedWithoutMemory", "listq:TestQueueIsWorkedOffWithoutMemory"},
	},
	{
		"dead-pile-up", "every claim drops the dead that are too many", "internal/script/claim.lua",
		"if over > 0 then old", "if over > 0 and ctr % 16 == 0 then old",
		[]string{"internal/script:TestDeadAreTrimmed", scriptModel, "listq:TestMaxDeadHolds"},
	},
	{
		"push-silently", "push pushes a token", "internal/script/push.lua",
		"if #new > 0 or call('LLEN', ready) > 0 then token() end\n", "", scripts("TestClaimLeavesToken"),
	},
	{
		"pushone-silently", "a push of one request pushes a token", "internal/script/pushone.lua",
		"  call('RPUSH', ready, id)\n  token()\n", "  call('RPUSH', ready, id)\n",
		[]string{scriptTable, scriptModel},
	},
	{
		"pushone-two-tokens", "a push of one request leaves one token at most", "internal/script/pushone.lua",
		"  call('RPUSH', ready, id)\n  token()\n", "  call('RPUSH', ready, id)\n  call('RPUSH', wake, '1')\n",
		[]string{scriptModel, queueWalks},
	},
	{
		"pushone-again-silently", "a push of one that is sent again pushes a token", "internal/script/pushone.lua",
		"if call('LLEN', ready) > 0 then token() end", "",
		[]string{"internal/script:TestPushAgainLeavesToken"},
	},
	{
		"push-again-silently", "a push of several that is sent again pushes a token", "internal/script/push.lua",
		"if #new > 0 or call('LLEN', ready) > 0 then", "if #new > 0 then",
		[]string{"internal/script:TestPushAgainLeavesToken", queueWalks},
	},
	{
		"pushone-by-body", "a finished request is remembered by a push of one", "internal/script/pushone.lua",
		"if call('SISMEMBER', gone, id) == 1 or call('SISMEMBER', past, id) == 1 or call(", "if call(",
		[]string{"internal/script:TestPushAfterDoneStaysDone", scriptModel},
	},
	{
		"pushone-asks-half", "a push of one asks both halves of the memory", "internal/script/pushone.lua",
		" or call('SISMEMBER', past, id) == 1", "", scripts("TestFinishedIdIsRememberedForTheWindow"),
	},
	{
		"pushone-known", "a push of one leaves a known request alone", "internal/script/pushone.lua",
		"call('HSETNX', state, id, v) == 0", "call('HSET', state, id, v) < 0",
		[]string{scriptTable, scriptModel},
	},
	{
		"push-known", "a push leaves a known request alone", "internal/script/push.lua",
		"call('HSETNX', state, id, v) == 0", "call('HSET', state, id, v) < 0",
		[]string{scriptTable, scriptModel, queueWalks},
	},
	{
		"hand-past-the-gate", "what is handed over has passed the gate", "internal/script/push.lua",
		"if alone and (lock == '' or call('HEXISTS', held, lock) == 0 and not oldest(lock)) then", "if alone then",
		[]string{scriptTable, scriptModel},
	},
	{
		"hand-past-the-line", "what is handed over does not overtake its lock's line", "internal/script/push.lua",
		" and not oldest(lock)", "",
		[]string{scriptTable, scriptModel},
	},
	{
		"hand-without-turn", "what is handed over has its lock's turn", "internal/script/push.lua",
		"      if lock ~= '' then call('HSET', held, lock, id) end\n", "",
		[]string{scriptTable, scriptModel, queueWalks},
	},
	{
		"hand-overtakes", "of several that are pushed the first is handed over, or none", "internal/script/push.lua",
		"    alone = false\n", "",
		[]string{scriptTable, scriptModel},
	},
	{
		"hand-past-ready", "nothing is handed over past what is ready", "internal/script/push.lua",
		"alone = call('EXISTS', wake, ready) == 0", "alone = call('EXISTS', wake) == 0",
		[]string{scriptTable, queueWalks},
	},
	{
		"pushone-past-ready", "nothing is handed over by a push of one past what is ready", "internal/script/pushone.lua",
		"call('EXISTS', wake, ready) == 0 then", "call('EXISTS', wake) == 0 then",
		[]string{scriptTable},
	},
	{
		"hand-to-nobody", "a request is handed over only while somebody listens", "internal/script/prelude.lua",
		"if not till or tonumber(till) <= now then", "if not till then",
		[]string{scriptTable, scriptModel, queueWalks},
	},
	{
		"hand-for-ever", "what is handed over has a lease", "internal/script/prelude.lua",
		"  call('ZADD', leased, whole(now + lease), id)\n  call('LPUSH', wake,", "  call('LPUSH', wake,",
		[]string{scriptTable, scriptModel, queueWalks},
	},
	{
		"hand-stays", "a claim takes what was handed over and nobody took", "internal/script/claim.lua",
		"takeback()\n", "",
		[]string{scriptTable, scriptModel, "listq:TestHandOverThatNobodyTookIsClaimed"},
	},
	{
		"hand-taken-twice", "a claim leaves what was handed over and is another's by now", "internal/script/prelude.lua",
		"elseif known or not offered(s.token) or recalled(id) then", "elseif recalled(id) then",
		[]string{scriptTable, scriptModel},
	},
	{
		"offer-forgotten", "what was offered and is done before it is stored is remembered", "internal/script/prelude.lua",
		"if code == 0 and not v and offered(tok) and window > 0 then", "if false then",
		[]string{scriptTable, queueWalks},
	},
	{
		"offer-unremembered", "what was offered is acknowledged before it is stored only if that is remembered", "internal/script/prelude.lua",
		"not v and offered(tok) and window > 0 then", "not v and offered(tok) then",
		[]string{scriptTable},
	},
	{
		"offer-stays", "what was offered and nobody took is ready when its push returns", "internal/script/offered.lua",
		"takeback()\n", "",
		[]string{scriptTable, queueWalks, "listq:TestOfferThatNobodyTakes"},
	},
	{
		"offer-dropped", "what was offered and is not stored yet is not dropped by a claim", "internal/script/prelude.lua",
		"elseif known or not offered(s.token) or recalled(id) then", "elseif known or s.token or recalled(id) then",
		[]string{scriptTable, scriptModel, queueWalks},
	},
	{
		"offer-back-again", "what was offered and is done does not come back from wake", "internal/script/prelude.lua",
		"not offered(s.token) or recalled(id) then", "not offered(s.token) then",
		[]string{scriptTable, scriptModel},
	},
	{
		"offer-one-back", "all that stands in wake is taken back", "internal/script/prelude.lua",
		"for _ = 1, 128 do\n    local over", "for _ = 1, 1 do\n    local over",
		[]string{scriptTable, scriptModel, queueWalks},
	},
	{
		"offer-pushed", "what may have been offered is not pushed as well", "internal/script/offer.go",
		"	return true, nil\n}\n\nvar offered", "	return false, nil\n}\n\nvar offered",
		[]string{"listq:TestOfferIsLost"},
	},
	{
		"offer-twice", "an offer is not sent again", "internal/attempts/attempts.go",
		"if atomic.AddInt32(&w.writes, 1) > 1 {", "if atomic.AddInt32(&w.writes, 1) > 9 {",
		[]string{"internal/attempts:TestOnce"},
	},
	{
		"offer-late", "nothing is offered when nobody may listen any more", "internal/script/offer.go",
		"if !r.server.Add(now.Sub(r.sent)).Before(r.until) {", "if r.until.IsZero() {",
		[]string{"listq:TestNotOffered"},
	},
	{
		"offer-at-once", "nothing is offered to a queue that has not rested", "internal/script/offer.go",
		"-time.Duration(last) > rested {", "-time.Duration(last) > 0 {",
		[]string{"listq:TestNotOffered"},
	},
	{
		"offer-lease", "the lease of what is offered is counted from before it", "internal/script/offer.go",
		"r.server.Add(now.Sub(r.answered)).UnixMilli() - 1", "r.server.Add(now.Sub(r.sent)).UnixMilli()",
		[]string{"internal/script:TestOfferCountsItsLeaseEarly"},
	},
	{
		"offer-after-others", "nothing is offered after several were pushed", "internal/script/script.go",
		"	q.idle.found.Store(nil)\n", "",
		[]string{"listq:TestNotOfferedAfterOthers"},
	},
	{
		"offer-again", "what was offered and could not be stored is not pushed as any other", "internal/script/script.go",
		"if err := q.close(ctx, e.ID); err != nil {", "if err := q.close(ctx, e.ID[:0]); err != nil {",
		[]string{"listq:TestPushAgainOfWhatWasOffered", "listq:TestAgainWhatWasOffered"},
	},
	{
		"offer-scheduled", "nor scheduled, or asked for, as if it were not there", "internal/script/offer.go",
		"if err := q.close(ctx, id); err != nil {", "if err := q.close(ctx, \"\"); err != nil {",
		[]string{"listq:TestAgainWhatWasOffered"},
	},
	{
		"offer-unknown", "its handler finds a request that was offered", "listq/queue.go",
		"		q.script.Took(h, h.Lease)\n", "",
		[]string{"listq:TestOfferedRequestIsKnownToItsHandler"},
	},
	{
		"offer-not-asked-for", "it is there for who asks", "internal/script/inspect.go",
		"if h, ok := q.open.of(id); ok {", "if h, ok := q.open.of(\"\"); ok {",
		[]string{"listq:TestOfferedRequestIsKnownToItsHandler"},
	},
	{
		"offer-unanswered", "it is known here from before the offer is sent", "internal/script/offer.go",
		"			q.open.add(h, now.Add(h.Lease)) // ctx may end at any time\n", "",
		[]string{"listq:TestAgainWhatWasOffered", "listq:TestPushAgainOfWhatWasOffered"},
	},
	{
		"offer-retried", "an offer that the server refuses is pushed at once", "internal/script/offer.go",
		"func (o *offering) NoRetry() bool { return true }", "func (o *offering) NoRetry() bool { return false }",
		[]string{"listq:TestReadOnlyServerRefusesAnOffer"},
	},
	{
		"offer-refused", "so is one that a node of a Cluster refuses, of which go-redis then asks another", "internal/script/offer.go",
		"o.refused = o.refused || errors.As(err, &reply)", "_ = errors.As(err, &reply)",
		[]string{"listq:TestOfferIsLost"},
	},
	{
		"offer-unsent", "an offer that cannot be sent is a push that cannot", "internal/script/offer.go",
		"		return false, err\n", "		return false, nil\n",
		[]string{"internal/script:TestOfferIsNotSent"},
	},
	{
		"offer-too-old", "what may be done and forgotten is not stored", "internal/script/offer.go",
		"left := q.memory - max(now.Sub(at), now.Round(0).Sub(at.Round(0)))", "left := q.memory - 0*max(now.Sub(at), now.Round(0).Sub(at.Round(0)))",
		[]string{"listq:TestOfferIsTooOldToBeStored"},
	},
	{
		"offer-stored-late", "nor by who took it, and was stopped for as long", "listq/delivery.go",
		"if h == nil || -d.left() >= d.queue.cfg.Resend {", "if h == nil {",
		[]string{"listq:TestTakerThatWasStoppedStoresNothing"},
	},
	{
		"offer-refused-again", "a queue that refuses what is offered is offered nothing", "internal/script/offer.go",
		"		q.idle.found.Store(nil)\n		return 0,", "		return 0,",
		[]string{"listq:TestPushAgainOfWhatWasOffered"},
	},
	{
		"offer-heard-by-the-forgetful", "who remembers no finished requests hears of no offers", "listq/consume.go",
		"c.cfg.Slots.size > 1 && c.queue.cfg.Resend > 0", "c.cfg.Slots.size > 1",
		[]string{"listq:TestForgetfulConsumerIsOfferedNothing"},
	},
	{
		"offer-stops-extensions", "one that cannot be stored costs no other its lease", "listq/consume.go",
		"		codes, err := c.queue.script.Extend(ctx, c.queue.cfg.Lease, leases(batch))\n		if err != nil {", "		codes, err := c.queue.script.Extend(ctx, c.queue.cfg.Lease, leases(batch))\n		for _, d := range batch {\n			if e := d.store(ctx); e != nil {\n				err = e\n			}\n		}\n		if err != nil {",
		[]string{"listq:TestOfferThatCannotBeStored"},
	},
	{
		"offer-extended-alone", "what was offered is extended with all others", "listq/consume.go",
		"			if !d.open(codes[i]) {", "			if d.offer.Load() == nil {",
		[]string{"listq:TestManyOffersAreRenewed"},
	},
	{
		"unblocked-is-final", "a pop that a failover ended is made again at once", "listq/delivery.go",
		"\"UNBLOCKED\", ", "",
		[]string{"listq:TestReadOnlyServerRefusesAnOffer"},
	},
	{
		"offer-definite", "what was offered and could not be stored may have run", "internal/script/offer.go",
		"return 0, attempts.Again(err)", "return 0, err",
		[]string{".:TestEnqueueOffers"},
	},
	{
		"offer-left", "what was offered is stored though its caller has gone", "internal/script/offer.go",
		"context.WithTimeout(context.WithoutCancel(ctx), left)", "context.WithTimeout(ctx, left)",
		[]string{"listq:TestOfferIsStoredThoughItsCallerHasGone"},
	},
	{
		"offer-not-new", "what was offered is new, though its taker was sooner", "internal/script/offer.go",
		"	_, err := q.pushed(now, cmd)\n	return Done, err", "	code, err := q.pushed(now, cmd)\n	return code, err",
		[]string{"listq:TestOfferedRequestRunsBeforeItIsStored"},
	},
	{
		"offer-named", "what its caller has named is not offered", "listq/request.go",
		"MaxWait: r.MaxWait, New: made}, nil", "MaxWait: r.MaxWait, New: true}, nil",
		[]string{"listq:TestNotOffered"},
	},
	{
		"offer-to-one", "nothing is offered to a worker by itself", "listq/consume.go",
		"return c.cfg.Slots.size > 1 && c.queue", "return c.queue",
		[]string{"listq:TestNotOffered"},
	},
	{
		"offer-forgetful", "nothing is offered by who remembers no finished requests", "listq/queue.go",
		"scripts.Offer(cfg.Resend, q.takeHere)", "scripts.Offer(time.Minute, q.takeHere)",
		[]string{"listq:TestNotOffered"},
	},
	{
		"here-never", "what is offered begins at once in a consumer of its own process that has nothing to do", "internal/script/offer.go",
		"if q.here(h) {", "if false {",
		[]string{"listq:TestWhatIsOfferedStartsHere"},
	},
	{
		"here-though-busy", "a consumer that runs something takes nothing before other processes", "listq/slots.go",
		"	if s.free < s.size {\n", "	if s.free < 1 {\n",
		[]string{"listq:TestWhoIsBusyTakesNothingHere"},
	},
	{
		"here-after-the-stop", "nothing begins in a consumer that stops", "listq/here.go",
		"c.ctx.Err() == nil && c.place.takeFirst()", "c.place.takeFirst()",
		[]string{"listq:TestNothingStartsHereAfterTheStop"},
	},
	{
		"here-though-deaf", "only who hears offers takes what is offered in its process", "listq/waker.go",
		"		if c.hearsOffers() {\n", "		if c != nil {\n",
		[]string{"listq:TestWhoHearsNoOffersTakesNothingHere"},
	},
	{
		"here-keeps-a-slot", "what cannot be read takes no slot", "listq/here.go",
		"		c.cfg.Slots.put(1)\n", "",
		[]string{"listq:TestWhoHearsNoOffersTakesNothingHere"},
	},
	{
		"offer-unstored", "what was offered is stored before it is settled, unless it is done", "listq/delivery.go",
		"if err != nil || !d.open(code) {", "if err != nil || d != nil {",
		[]string{"listq:TestOfferedRequestIsStoredByItsTaker"},
	},
	{
		"offer-unextended", "what was offered is stored before its lease is extended", "listq/consume.go",
		"if !d.open(codes[i]) {", "if d != nil {",
		[]string{"listq:TestOfferIsRenewed"},
	},
	{
		"offer-unreturned", "what was offered is stored before it is given back", "listq/consume.go",
		"if err == nil && d.open(codes[i]) {", "if err == nil && d == nil {",
		[]string{"listq:TestHandOverGoesBack"},
	},
	{
		"hand-counted", "what nobody took counts no delivery", "internal/script/prelude.lua",
		"s.place, s.token, s.deliveries = 'r', '', 0", "s.place, s.token = 'r', ''",
		[]string{scriptTable, scriptModel, "listq:TestHandOverThatNobodyTookIsClaimed"},
	},
	{
		"hand-cancelled-runs", "what is cancelled while it is handed over does not run", "internal/script/cancel.lua",
		"takeback()\n", "",
		[]string{scriptTable, scriptModel, "listq:TestCancelledHandOverDoesNotRun"},
	},
	{
		"hand-not-rescheduled", "what is handed over and nobody took can be rescheduled", "internal/script/reschedule.lua",
		"takeback()\n", "",
		[]string{scriptTable, scriptModel},
	},
	{
		"listens-without-a-slot", "only who has a slot left says that it listens", "internal/script/claim.lua",
		"if listen > 0 and n > 0 and not more then", "if listen > 0 and not more then",
		[]string{scriptTable, scriptModel},
	},
	{
		"listens-after-the-end", "who stops takes back that it listens", "internal/script/yield.lua",
		"call('HDEL', meta, 'idle')\n", "",
		[]string{scriptTable, scriptModel, "listq:TestHandOverThatNobodyTookIsClaimed"},
	},
	{
		"hand-is-token", "what is handed over does not stand for the token", "internal/script/prelude.lua",
		"call('LINDEX', wake, -1) ~= '1' then call('RPUSH', wake, '1')", "call('LLEN', wake) == 0 then call('RPUSH', wake, '1')",
		[]string{scriptTable, scriptModel, queueWalks},
	},
	{
		"pushes-never-meet", "pushes that meet share a command", "internal/script/script.go",
		"	if !ok {\n		var sent bool", "	if !ok && false {\n		var sent bool",
		[]string{"listq:TestPushesThatMeetShareACommand"},
	},
	{
		"pushes-mixed-up", "each of the pushes that share a command is told of its own requests", "internal/script/script.go",
		"p.codes, codes = codes[:n:n], codes[n:]", "p.codes = codes[:n:n]",
		[]string{"listq:TestPushesThatMeetShareACommand"},
	},
	{
		"pushes-hide-error", "an error is that of all who share the command", "internal/script/script.go",
		"if p.err = err; err == nil {", "if err == nil {",
		[]string{"listq:TestAnErrorOfASharedPushIsEverybodys"},
	},
	{
		"pushes-unbounded", "what several push in one command is bounded", "internal/script/script.go",
		"Bound*entryWeight", "1000*Bound*entryWeight",
		[]string{"listq:TestASharedPushIsBounded"},
	},
	{
		"push-backwards", "a push appends in the order of its requests", "internal/script/push.lua",
		"call('RPUSH', ready, unpack(new))", "call('LPUSH', ready, unpack(new))",
		[]string{"listq:TestPushesThatMeetShareACommand", scriptModel, queueWalks},
	},
	{
		"accept-does-not-wait", "who asks for replicas waits for them", "internal/script/wait.go",
		"	if q.wait.Replicas == 0 {", "	if q.wait.Replicas >= 0 {",
		[]string{"listq:TestWaitForReplicas", "listq:TestWaitCountsWhatOthersWrote"},
	},
	{
		"wait-without-a-write", "what an earlier call stored is waited for too", "internal/script/wait.go",
		"		p.HIncrBy(ctx, q.keys.Meta(), \"waits\", 1)\n", "",
		[]string{"listq:TestWaitAlwaysWrites"},
	},
	{
		"wait-for-nobody", "too few replicas are an error", "internal/script/wait.go",
		"case acked.Val() < int64(q.wait.Replicas):", "case acked.Val() < 0:",
		[]string{"listq:TestWaitForReplicas", "listq:TestWaitCountsWhatOthersWrote"},
	},
	{
		"head-silently", "what becomes due first pushes a token", "internal/script/prelude.lua",
		"  if call('ZRANGE', delayed, 0, 0)[1] == member then token() end\n", "", scripts("TestEarlierHeadTakesClock"),
	},
	{
		"two-tokens", "at most one token stands", "internal/script/prelude.lua",
		"if not quiet and call('LINDEX', wake, -1) ~= '1' then", "if not quiet then",
		[]string{scriptModel, queueWalks},
	},
	{
		"no-probe", "who stands in line has a probe", "internal/script/prelude.lua",
		"if call('ZADD', delayed, 'LT', 'CH', whole(due), probe(s.lock)) > 0 then headed(probe(s.lock)) end", "",
		[]string{scriptModel, queueWalks},
	},
	{
		"probe-not-rearmed", "a probe that was due is due again", "internal/script/claim.lua",
		"  call('ZADD', delayed, whole(at), probe(lock))", "  call('ZREM', delayed, probe(lock))",
		[]string{scriptModel, queueWalks},
	},
	{
		"probe-ignores-turn", "no look at a lock while a request has the turn", "internal/script/claim.lua",
		"  if not id then probes[#probes + 1] = lock end", "  probes[#probes + 1] = lock",
		[]string{scriptModel, queueWalks},
	},
	{
		"probe-left-behind", "a probe goes with the last in line", "internal/script/prelude.lua",
		"  if not oldest(lock) then call('ZREM', delayed, probe(lock)) end\n", "",
		[]string{scriptModel, queueWalks},
	},
	{
		"clock-kept", "what is due earlier takes the clock", "internal/script/claim.lua",
		" or deadline <= now or head < deadline then", " or deadline <= now then", scripts("TestEarlierHeadTakesClock")[:2],
	},
	{
		"yield-keeps-clock", "who stops gives up the clock", "internal/script/yield.lua",
		"if owner == ARGV[1] then call('DEL', clock) end\n", "", scripts("TestYieldHandsOverClock")[:2],
	},
	{
		"yield-silently", "who stops pushes a token", "internal/script/yield.lua",
		"token()\n", "", scripts("TestYieldHandsOverClock")[:2],
	},
	{
		"max-wait-ignored", "who waited too long is dead", "internal/script/prelude.lua",
		"return s.maxwait > 0 and s.accepted + s.maxwait <= now end", "return false end",
		[]string{scriptModel, queueWalks, "delayq:TestMaxWaitAndDeferrals"},
	},
	{
		"crash-loop-ignored", "who comes back without an end too often is dead", "internal/script/claim.lua",
		"if most > 0 and s.deliveries - s.attempts - s.deferrals >= most then", "if false then",
		[]string{scriptTable, queueWalks, "listq:TestCapsMakeRequestsDead"},
	},
	{
		"deferral-is-attempt", "a deferral counts as no attempt", "internal/script/park.lua",
		"s.deferrals = s.deferrals + 1", "s.attempts = s.attempts + 1",
		[]string{scriptModel},
	},
	{
		"nack-uncounted", "a failure counts as an attempt", "internal/script/nack.lua",
		"  s.attempts = s.attempts + 1\n", "",
		[]string{scriptModel},
	},
	{
		"early", "nothing runs before it is due", "internal/script/claim.lua",
		"call('ZRANGEBYSCORE', delayed, '-inf', whole(now), 'LIMIT', 0, few)", "call('ZRANGEBYSCORE', delayed, '-inf', whole(now + 30000), 'LIMIT', 0, few)",
		[]string{scriptModel, "delayq:TestScheduledRequestsRunOnTime"},
	},
	{
		"reschedule-again", "a reschedule that is sent again changes nothing", "internal/script/reschedule.lua",
		"if s.stamp == ARGV[3] then return {2, due, buried} end\n", "",
		[]string{scriptModel},
	},
	{
		"reschedule-ends-turn", "who is promoted keeps the turn", "internal/script/reschedule.lua",
		"if due > now then leave(id, s) end", "leave(id, s)",
		[]string{scriptTable, scriptModel, ".:TestPromoteKeepsStrictOrder", ".:TestPromoteOfOneThatHasTheTurn"},
	},
	{
		"revive-keeps-place", "who is revived stands at the tail", "internal/script/revive.lua",
		"mint(new)", "new.seq = s.seq",
		[]string{scriptModel, queueWalks},
	},

	// The lock: docs/lock.md.
	{
		"count-from-receipt", "a grant counts by the anchor rule", "lock/ticket.go",
		"limit.Before(deadline) || s.l.fromReceipt {", "true {",
		[]string{"lock:TestAnchorRule"},
	},
	{
		"count-from-reply", "a lease counts from when it was asked for", "lock/try.go",
		"validUntil(ls.since, ls.ttl)", "validUntil(time.Now(), ls.ttl)",
		[]string{"lock:TestReplyLaterThanTheLeaseIsNoLock"},
	},
	{
		"late-reply-is-a-lock", "a reply later than the lease is no lock", "lock/try.go",
		"	if between(now, ls.deadline) <= 0 {\n		t.clean()", "	if false {\n		t.clean()",
		[]string{"lock:TestReplyLaterThanTheLeaseIsNoLock"},
	},
	{
		"monotonic-clock-only", "the earlier of the two clocks counts", "lock/lease.go",
		"return min(t.Sub(now), t.Round(0).Sub(now.Round(0)))", "return t.Sub(now)",
		[]string{"lock:TestTheClockThatSaysLessCounts"},
	},
	{
		"context-not-ended", "the context ends with the lock", "lock/lease.go",
		"		lk.cancel(cause)\n", "",
		[]string{"lock:TestLostLockEndsContextInTime", "lock:TestMaxHold"},
	},
	{
		"context-ended-late", "the context ends before the lease does, without an answer", "lock/hold.go",
		"	ls.arm()\n", "",
		[]string{"lock:TestLostLockEndsContextInTime"},
	},
	{
		"timer-not-moved", "the timer of a section runs for its own end", "lock/lease.go",
		"	case !ls.armed.Equal(at):\n", "	case ls.armed.IsZero():\n",
		[]string{"lock:TestMaxHoldOfASectionHandedOn"},
	},
	{
		"revoke-tells-nobody", "a revoke that frees a lock tells the queues that wait for it", "lock/revoke.lua",
		"if not KEYS[4] then return 1 end", "if true then return 1 end",
		[]string{"lock:TestRevokeTellsQueues", ".:TestRevokeLetsTheLineGoOn"},
	},
	{
		"revoke-anybody", "a revoke that is sent again takes the lock from nobody else", "lock/revoke.lua",
		"if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 3 end", "if not redis.call('GET', KEYS[1]) then return 0 end",
		[]string{"lock:TestRevokeAgain"},
	},
	{
		"stay-behind-lapsed", "waiters leave a lapsed holder behind", "lock/lease.go",
		"		ls.tk.slot.ended(ls.tk)\n", "",
		[]string{"lock:TestLapsedHolderIsLeftBehind"},
	},
	{
		"extend-creates", "extend never takes a free lock", "lock/extend.lua",
		"  if redis.call('GET', key) == ARGV[2 * i - 1] then", "  if redis.call('SET', key, ARGV[2 * i - 1]) then",
		[]string{"lock:TestExtendRevivesNothing", lockWalks},
	},
	{
		"extend-shortens", "extend never shortens a lease", "lock/extend.lua",
		"if redis.call('PTTL', key) < tonumber(ARGV[2 * i]) then redis", "if true then redis",
		[]string{"lock:TestExtendShortensNoLease", "lock:TestTheWatchdogShortensNoLease"},
	},
	{
		"prolong-shortens", "an acquire that is sent again, or late, shortens no lease", "lock/prelude.lua",
		"  if redis.call('PTTL', key) < tonumber(ms) then redis", "  if true then redis",
		[]string{"lock:TestLateCopiesShortenNoLease"},
	},
	{
		"release-any", "release compares the token", "lock/release.lua",
		"if held ~= ARGV[1] then", "if not held then",
		[]string{lockTable, lockWalks},
	},
	{
		"release-keeps-entry", "release leaves the line", "lock/release.lua",
		"if ARGV[3] then call('ZREM', KEYS[3], ARGV[3]) end\n", "",
		[]string{lockWalks, "lock:TestCancelledWaitLeavesTheLine"},
	},
	{
		"acquire-forgets-itself", "acquire recognises its own token", "lock/acquire.lua",
		"if held == me then", "if false then",
		[]string{lockTable, lockWalks, "lock:TestLostReplyIsSentAgain"},
	},
	{
		"acquire-past-the-line", "a free lock goes to the first in line", "lock/acquire.lua",
		"if not entry or redis.call('ZCARD', KEYS[3]) == 0 then", "if true then",
		[]string{lockTable, lockWalks},
	},
	{
		"trylock-past-the-line", "the shortcut too: a free lock goes to the first in line", "lock/trylock.lua",
		"(not ARGV[5] or call('EXISTS', KEYS[3]) == 0)", "true",
		[]string{lockTable, lockWalks},
	},
	{
		"trylock-takes-held", "the shortcut takes a free lock only", "lock/trylock.lua",
		"call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])", "call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])",
		[]string{lockTable, lockWalks},
	},
	{
		"trylock-refuses-itself", "the shortcut refuses only who does not hold the lock", "lock/trylock.lua",
		"if held and held ~= ARGV[1] then", "if held then",
		[]string{lockTable, "lock:TestLostReplyIsSentAgain"},
	},
	{
		"trylock-fence-stays", "fences grow though the clock steps back, in the shortcut", "lock/mark.lua",
		"if last > f - k or last <", "if last <",
		[]string{"lock:TestFenceGrowsThoughTheClockStepsBack", "lock:TestFenceIsKept"},
	},
	{
		"trylock-fence-expires", "the fence outlives its period", "lock/mark.lua",
		" or last < period * margin * 1000 then", " then",
		[]string{"lock:TestFenceIsKept"},
	},
	{
		"trylock-no-undo", "a lock whose fence cannot be written is not taken", "lock/mark.lua",
		"if failed then redis.pcall('DEL', lock) end\n", "",
		[]string{"lock:TestFenceOfAnotherType", "lock:TestFaultOfTheFenceStrandsNothing"},
	},
	{
		"unlock-any", "the shortcut of release compares the token", "lock/unlock.lua",
		"if held == ARGV[1] then", "if held then",
		[]string{lockTable, lockWalks},
	},
	{
		"unlock-past-the-line", "a lock that is released goes to the first in line", "lock/unlock.lua",
		"call('EXISTS', KEYS[3], KEYS[4] or KEYS[3]) == 0", "(not KEYS[4] or call('EXISTS', KEYS[4]) == 0)",
		[]string{lockTable, lockWalks},
	},
	{
		"unlock-past-the-parked", "a release reports the queues that registered", "lock/unlock.lua",
		"call('EXISTS', KEYS[3], KEYS[4] or KEYS[3]) == 0", "call('EXISTS', KEYS[3]) == 0",
		[]string{lockTable, "lock:TestLookAndReported", queueWalks},
	},
	{
		"fence-from-clock", "fences grow though the clock steps back", "lock/prelude.lua",
		"math.max((tonumber(redis.call('GET', key) or 0) or 0) + 1, clock) + k - 1", "clock + k - 1",
		[]string{"lock:TestFencesOfAGrantGrow"},
	},
	{
		"fence-from-counter", "fences grow though the data are lost", "lock/prelude.lua",
		"or 0) + 1, clock) + k - 1", "or 0) + 1, 0) + k - 1",
		[]string{"lock:TestFencesOfAGrantGrow"},
	},
	{
		"many-one-by-one", "acquires and releases that meet go in one script", "lock/many.go",
		"if taken < 2 {", "if taken < 1000 {",
		[]string{"lock:TestWhoMeetsOthersSharesARoundTrip", "lock:TestTogether"},
	},
	{
		"many-mixes-keys", "in a script of several each has its own keys", "lock/many.lua",
		"KEYS[key + (j - 1) * n + i]", "KEYS[key + (j - 1) * n + 1]",
		[]string{lockTable, lockWalks},
	},
	{
		"many-mixes-fences", "in a script of several each has its own fence", "lock/take.lua",
		"KEYS[key + i], KEYS[key + n + i], least", "KEYS[key + i], KEYS[key + n + 1], least",
		[]string{lockWalks},
	},
	{
		"many-mixes-arguments", "in a script of several each has its own entry", "lock/many.lua",
		"ARGV[value + n + i] or nil", "ARGV[value + n + 1] or nil",
		[]string{lockTable, lockWalks},
	},
	{
		"many-mixes-groups", "calls of two kinds are of two groups", "lock/many.go",
		"if groups[i].kind == k {", "if groups[i].release == k.release {",
		[]string{lockTable, lockWalks},
	},
	{
		"many-past-the-line", "in a script of several too: a free lock goes to the first in line", "lock/many.lua",
		"unpack(KEYS, key + 2 * n + 1, key + keys * n)) == 0", "unpack(KEYS, key + 2 * n + 1, key + keys * n)) >= 0",
		[]string{lockTable, lockWalks},
	},
	{
		"many-takes-held", "in a script of several too, a free lock only is taken", "lock/take.lua",
		"ARGV[value + i], 'NX', 'PX', lease)", "ARGV[value + i], 'PX', lease)",
		[]string{lockTable, lockWalks},
	},
	{
		"many-frees-others", "in a script of several too, who does not hold a lock does not free it", "lock/many.lua",
		"if held[i] == ARGV[value + i] then", "if held[i] then",
		[]string{lockTable, lockWalks},
	},
	{
		"many-fails-all", "one that fails fails no other of a script", "lock/many.lua",
		"ok, said = pcall(alone, i)", "ok, said = true, alone(i)",
		[]string{"lock:TestTogether"},
	},
	{
		"many-raises", "a fence of nonsense takes no other's answer away", "lock/mark.lua",
		"    last = redis.pcall('SET',", "    last = redis.call('SET',",
		[]string{"lock:TestAFenceOfNonsenseFailsNoOther"},
	},
	{
		"revoked-by-name", "the lease that a Revoke finds is the one that is handed on to nobody", "lock/script.go",
		"	seen(was.value)\n", "",
		[]string{"lock:TestRevokedLaterLeaseIsNotHandedOn", "lock:TestRevokedLockIsNotHandedOn"},
	},
	{
		"lost-what-it-returns", "an error that cannot be compared is the section's own", "sidestep.go",
		"return reflect.ValueOf(err).Comparable() && err != own }", "return !reflect.ValueOf(err).Comparable() || err != own }",
		[]string{".:TestLostIsNotWhatTheSectionReturns"},
	},
	{
		"announced-in-front", "nobody waits for the announcement of what may have been stored", "queue.go",
		"			go q.announce(ctx, p, req.Lock)\n", "			q.announce(ctx, p, req.Lock)\n",
		[]string{".:TestAmbiguousDeferralKeepsNobodyLonger"},
	},
	{
		"handed-for-longer", "a hand-over is leased for no longer than its taker extends it", "listq/queue.go",
		"began.Add(min(h.Lease, q.cfg.Lease))", "began.Add(h.Lease)",
		[]string{"listq:TestHandedOverWithAnothersLease"},
	},
	{
		"unsent-claim-began", "a claim that was not sent began no lease", "listq/queue.go",
		"	if err := ctx.Err(); err != nil { // nothing is sent, so no lease begins\n", "	if err := ctx.Err(); err != nil && l == nil {\n",
		[]string{"listq:TestClaimThatWasNotSentBeganNoLease"},
	},
	{
		"reschedule-needs-memory", "what is there can be rescheduled while Redis is out of memory", "internal/script/reschedule.lua",
		"begin()\n", "",
		[]string{"delayq:TestRescheduleWithoutMemory"},
	},
	{
		"many-keeps-failures", "what fails in a script of several is sent by itself", "lock/many.go",
		"failed || replies[i] == nil {", "failed && replies[i] == nil {",
		[]string{"lock:TestTogether", "lock:TestFenceOfAnotherType"},
	},
	{
		"many-lost", "of an answer that is lost each caller knows", "lock/many.go",
		"			c.SetErr(err)\n", "			_ = c\n",
		[]string{"lock:TestTogether", "lock:TestALostRoundTripIsRepeatedByEach"},
	},
	{
		"many-again-and-again", "a server that takes no keys of several locks is not asked again", "lock/script.go",
		"		n.apart.Store(true)\n", "",
		[]string{"lock:TestTogether", "lock:TestExtendedTogether"},
	},
	{
		"extended-all-or-none", "what fails a script that extends several is sent each by itself", "lock/script.go",
		"if len(batch) > 1 && n.refusedTogether(err) {", "if n.refusedTogether(err); false {",
		[]string{"lock:TestExtendedTogether", "lock:TestExtendedTogetherAtAClusterNode"},
	},
	{
		"many-then-others", "who shared a round trip without an answer waits for no second one", "lock/many.go",
		"		for _, c := range cmds {\n			c.SetErr(err)\n		}\n		return nil\n",
		"		for _, g := range groups {\n			for _, c := range g.calls {\n				c.SetErr(err)\n			}\n		}\n		return rest\n",
		[]string{"lock:TestTogether", "lock:TestReleasesThatMeetOthersEndInTime"},
	},
	{
		"many-repeats-all", "a script of several is not repeated as a whole", "lock/many.go",
		"if err := m.n.process(ctx, cmd, true); redis", "if err := m.n.process(ctx, cmd, false); redis",
		[]string{"lock:TestTogether", "lock:TestALostRoundTripIsRepeatedByEach"},
	},
	{
		"many-unknown", "a script of several is brought along where it is not known", "lock/many.go",
		"redis.HasErrorPrefix(err, \"NOSCRIPT\") {", "redis.HasErrorPrefix(err, \"NOSCRIPTS\") {",
		[]string{"lock:TestTogether", "lock:TestWhoMeetsOthersSharesARoundTrip"},
	},
	{
		"stale-block", "fences come from the block that was reserved", "lock/ticket.go",
		"tk.next, tk.last, tk.turn = last-tk.block+1, last, now", "tk.next, tk.last, tk.turn = last, last+tk.block-1, now",
		[]string{"lock:TestFencesOfATurnAreItsOwn"},
	},
	{
		"grant-to-nobody", "who does not listen gets no grant", "lock/prelude.lua",
		"if redis.call('PUBSUB', 'NUMSUB', chan)[2] > 0 then", "if true then",
		[]string{lockWalks, lockTable},
	},
	{
		"join-again-at-the-tail", "who joins again keeps the place", "lock/prelude.lua",
		"redis.call('ZADD', KEYS[3], 'NX', text(now), entry)", "redis.call('ZADD', KEYS[3], text(now), entry)",
		[]string{lockWalks},
	},
	{
		"line-for-ever", "the line has an expiry", "lock/prelude.lua",
		"  prolong(KEYS[3], math.min(2 * math.max(left, 10 * claim), 1e13))\n", "",
		[]string{lockTable},
	},
	{
		"line-for-ages", "a foreign lock that expires in ages can be waited for", "lock/prelude.lua",
		"math.min(2 * math.max(left, 10 * claim), 1e13)", "2 * math.max(left, 10 * claim)",
		[]string{"lock:TestForeignLockThatLastsForAges"},
	},
	{
		"register-for-ages", "a queue can register with a foreign lock that expires in ages", "lock/look.lua",
		"math.min(2 * math.max(left, tonumber(ARGV[2])), 1e13)", "2 * math.max(left, tonumber(ARGV[2]))",
		[]string{"lock:TestForeignLockThatLastsForAges"},
	},
	{
		"long-timer", "a waiter asks again after a claim lease", "lock/ticket.go",
		"	d := claim\n", "	d := max(s.left, claim)\n",
		[]string{"lock:TestDeadWaiterCostsAClaimLease"},
	},
	{
		"unknown-grant-ignored", "a grant for nobody is given back", "lock/mailbox.go",
		"		l.live[g.value] = ls\n		l.giveBack(ls)\n", "		l.live[g.value] = ls\n",
		[]string{"lock:TestUnknownGrantIsGivenBack"},
	},
	{
		"anchor-survives", "a new subscription drops the anchor and asks again", "lock/mailbox.go",
		"			s.tk.anchored = false\n			s.again(s.acquire())\n", "",
		[]string{"lock:TestWaiterRejoinsAfterItsSubscriptionIsKilled"},
	},
	{
		"half-open", "a subscription that answers no ping is replaced", "lock/mailbox.go",
		"			case pinged || !heard:", "			case pinged && false || !heard:",
		[]string{"lock:TestHalfOpenSubscriptionIsReplaced"},
	},
	{
		"confirm-skipped", "a plain Acquire confirms its grant", "lock/ticket.go",
		"if tk.anchored && !s.fifo[0].plain {", "if tk.anchored {",
		[]string{"lock:TestGrantedAcquireConfirms"},
	},
	{
		"cancel-leaves-entry", "who gives up waiting leaves the line", "lock/ticket.go",
		"			s.abandoned()\n", "",
		[]string{"lock:TestCancelledWaitLeavesTheLine"},
	},
	{
		"orphan-of-a-try", "what a cancelled try is granted is given back", "lock/try.go",
		"	if t.abandoned {", "	if false {",
		[]string{"lock:TestDeadlineIsHonouredAndLeavesNoOrphan"},
	},
	{
		"release-with-context", "release does not end with its context", "lock/lock.go",
		"d.send(l.limits.limit(ctx, now), true)", "d.send(ctx, true)",
		[]string{"lock:TestReleaseOutlivesItsContext"},
	},
	{
		"release-cut-short", "a release that shares the timer of others has its time", "lock/locker.go",
		"l.end.Sub(now) < connectTimeout*9/10", "l.end.Sub(now) <= 0",
		[]string{"lock:TestLimits"},
	},
	{
		"release-behind-with-context", "nor does a release on another goroutine", "lock/lock.go",
		"there.send(detached(ctx), false)", "there.send(ctx, false)",
		[]string{"lock:TestReleaseOutlivesItsContext"},
	},
	{
		"undo-reports-nothing", "a lock that is given back in the background tells the queues", "lock/locker.go",
		"report: len(l.listeners()) > 0}", "report: false}",
		[]string{"lock:TestGrantToOneWhoLeftReports"},
	},
	{
		"undo-reports-to-nobody", "what nobody can be told of stays registered", "lock/locker.go",
		"report: len(l.listeners()) > 0}", "report: true}",
		[]string{"lock:TestGivenBackKeepsRegistrations"},
	},
	{
		"revoked-is-handed-on", "a lock that was revoked here is handed to nobody without asking Redis", "lock/locker.go",
		"			ls.given = true\n", "			_ = ls\n",
		[]string{"lock:TestRevokedLockIsNotHandedOn"},
	},
	{
		"revoked-is-passed-on", "a lock that was revoked here is no next section's of its relay", "lock/relay.go",
		"(b.ls.given || past(b.ls.deadline))", "past(b.ls.deadline)",
		[]string{"lock:TestRevokedLockIsNotHandedOn"},
	},
	{
		"workers-without-bound", "a bounded number of goroutines wait for work", "lock/workers.go",
		"if l.closed || len(w.idle) == maxIdle {", "if l.closed {",
		[]string{"lock:TestWorkers"},
	},
	{
		"workers-for-ever", "goroutines without work end", "lock/workers.go",
		"	w.end(w.spare)\n", "",
		[]string{"lock:TestWorkers"},
	},
	{
		"workers-ended-in-use", "goroutines that are needed now and then are kept", "lock/workers.go",
		"		w.spare = min(w.spare, last)\n", "",
		[]string{"lock:TestSweepSparesThoseInUse"},
	},
	{
		"workers-rest-after-close", "no goroutine waits for work once the Locker is closed", "lock/workers.go",
		"if l.closed || len(w.idle) == maxIdle {", "if len(w.idle) == maxIdle {",
		[]string{"lock:TestCloseEndsWorkersAtOnce"},
	},
	{
		"close-leaves-the-idle", "Close ends the goroutines that wait for work", "lock/locker.go",
		"		l.workers.end(len(l.workers.idle))\n", "",
		[]string{"lock:TestCloseEndsWorkersAtOnce"},
	},
	{
		"close-leaves-callers", "Close waits for commands that callers make themselves", "lock/workers.go",
		"	l.workers.n++\n	l.mu.Unlock()\n	returned := false\n	defer func() {\n		l.mu.Lock()\n		if l.gone(); !returned {", "	l.mu.Unlock()\n	returned := false\n	defer func() {\n		l.mu.Lock()\n		if !returned {",
		[]string{"lock:TestCloseWaitsForCallsWithoutAnEnd"},
	},
	{
		"panic-keeps-the-locker", "a panic in a call harms no other", "lock/workers.go",
		"if l.gone(); !returned {", "if l.gone(); returned && !returned {",
		[]string{"lock:TestAPanicInACallLeavesTheLocker"},
	},
	// Commands that share a round trip: docs/lock.md §2.
	{
		"batch-never", "who meets others shares a round trip", "lock/script.go",
		"	if n.room == nil {", "	if n.room != nil {",
		[]string{"lock:TestWhoMeetsOthersSharesARoundTrip"},
	},
	{
		"batch-repeats-all", "a shared round trip is not repeated as a whole", "lock/script.go",
		"p.Process(ctx, unrepeated{c})", "p.Process(ctx, c)",
		[]string{"lock:TestTogether"},
	},
	{
		"batch-repeats-none", "who lost the answer of a shared round trip repeats its own command", "lock/script.go",
		"if !once && n.repeats && repeatable(err) {", "if false {",
		[]string{"lock:TestALostRoundTripIsRepeatedByEach"},
	},
	{
		"batch-repeats-once", "the first attempt of a release is not repeated, in a shared round trip either", "lock/script.go",
		"if !once && n.repeats && repeatable(err) {", "if n.repeats && repeatable(err) {",
		[]string{"lock:TestAReleaseThatSharesARoundTripEndsInTime"},
	},
	{
		"batch-stuck", "who waits for a place is not stuck behind exchanges that hang", "internal/batch/batch.go",
		"	patience = 5 * time.Millisecond\n", "	patience = 5 * time.Hour\n",
		[]string{"lock:TestConnectionsThatHangHoldUpNoOthers", "internal/batch:TestNobodyIsStuckBehindAnExchangeThatHangs"},
	},
	{
		"batch-uses-again", "what was sent is used for no other command", "lock/script.go",
		"func (a *acquireArgs) free() {\n	if a.sha.Aside() {", "func (a *acquireArgs) free() {\n	if a != nil {",
		[]string{"lock:TestCommandsThatAHookKeeps"},
	},
	{
		"batch-context", "the context of one caller ends nothing of the others", "internal/batch/batch.go",
		"r.send(context.WithoutCancel(ctx), items)", "r.send(ctx, items)",
		[]string{"internal/batch:TestAContextEndsNothingOfOthers"},
	},
	{
		"batch-deserted", "who is to send for the others stays though its context ends", "internal/batch/batch.go",
		"return r.leaves && !w.leads", "return r.leaves",
		[]string{"internal/batch:TestWhoIsToSendForOthersDoes"},
	},
	{
		"batch-panic", "a panic while one sends for all is told to the others", "internal/batch/batch.go",
		"			w.lost = lost\n", "			_ = lost\n",
		[]string{"internal/batch:TestAPanicLosesNobody"},
	},
	{
		"batch-unbounded", "what is sent at once is bounded", "internal/batch/batch.go",
		"n > 0 && weight > r.limit {", "false {",
		[]string{"internal/batch:TestWhatIsSentAtOnceIsBounded"},
	},
	{
		"batch-few-beside-many", "few do not go beside many that are under way", "internal/batch/batch.go",
		"n*r.fresh >= r.items", "true",
		[]string{"internal/batch:TestFewDoNotGoBesideMany"},
	},
	{
		"batch-beside-the-hung", "who waits beside an exchange that hangs does not wait to become as many", "internal/batch/batch.go",
		"		r.fresh, r.items = 0, 0\n", "",
		[]string{"internal/batch:TestOneThatHangsCostsNotEachItsPatience"},
	},
	{
		"batch-far-by-now", "a server that is far by now is found out under load, too", "internal/batch/batch.go",
		"	r.took(x, now)\n", "	if x.items == 1 {\n		r.took(x, now)\n	}\n",
		[]string{"internal/batch:TestANearServerThatIsFarNow"},
	},
	{
		"batch-near", "where the server is far more exchanges are under way at once", "internal/batch/batch.go",
		"r.room = least + int(quick/step)", "r.room = least",
		[]string{"internal/batch:TestAFarServerHasMoreRoom"},
	},
	{
		"hand-off-past-the-deadline", "a hand-off keeps the deadline", "lock/ticket.go",
		"s.l.cfg.TurnTime || between(now, tk.deadline) <= 0 {", "s.l.cfg.TurnTime {",
		[]string{"lock:TestNoHandOffPastTheDeadline"},
	},
	{
		"turn-without-fences", "a turn ends with its block of fences", "lock/ticket.go",
		" || tk.next > tk.last || s.l.closed {", " || s.l.closed {",
		[]string{"lock:TestTurnIsBounded"},
	},
	{
		"turn-without-time", "a turn ends with its time", "lock/ticket.go",
		"if now.Sub(tk.turn) >= s.l.cfg.TurnTime || between", "if between",
		[]string{"lock:TestTurnEndsWithItsTime"},
	},
	{
		"first-tick-late", "the first tick comes after a third of what was granted", "lock/watchdog.go",
		"ls.since.Add(ls.granted / 3)", "ls.since.Add(ls.ttl / 3)",
		[]string{"lock:TestGrantedHoldExtendsInTime"},
	},
	{
		"look-only", "a look registers the queue", "lock/look.lua",
		"redis.call('SADD', KEYS[2], ARGV[1])\n", "",
		[]string{"lock:TestLookAndReported", queueWalks},
	},
	{
		"report-twice", "a release takes the registrations away", "lock/release.lua",
		"call('DEL', KEYS[4])\n", "",
		[]string{"lock:TestLookAndReported", queueWalks},
	},
	{
		"hand-off-of-the-given", "a lock whose token was given away is not handed on without Redis", "lock/ticket.go",
		" || tk.given || tk.next", " || tk.next",
		[]string{"lock:TestReleaseOfAnAdoptedLockHandsNothingOn"},
	},
	{
		"expired-stays", "nothing stays of a lock that was left to expire", "lock/lease.go",
		"			ls.abandon(ErrNotHeld)\n", "",
		[]string{"lock:TestNothingStaysOfALockThatExpired"},
	},
	{
		"expired-kept-in-redis", "what Redis still has of a lock that was left to expire is given back", "lock/lease.go",
		"			l.giveBack(ls)\n		} else {\n", "		}\n		{\n",
		[]string{"lock:TestReleaseAfterTheLeaseGivesBack"},
	},
	{
		"orphan-after-a-grant", "an error after a grant leaves no orphan", "lock/ticket.go",
		" || tk.entry != \"\" || tk.had {", " || tk.entry != \"\" {",
		[]string{"lock:TestErrorAfterAGrantLeavesNoOrphan"},
	},
	{
		"context-outlives-release", "the context of a section ends before its function's release does", "lock/lock.go",
		"			lk.cancel(cause) // before", "			if held {\n				lk.cancel(cause)\n			} // before",
		[]string{"lock:TestReleaseInHoldEndsTheContext"},
	},
	{
		"context-outlives-return", "the context of a section that has returned ends before its release", "lock/lock.go",
		"			lk.cancel(cause) // before", "			if !held {\n				lk.cancel(cause)\n			} // before",
		[]string{"lock:TestReturnFromHoldEndsTheContext"},
	},
	{
		"hold-in-hold-releases", "a second Hold leaves the first its lock", "lock/hold.go",
		"		if !lk.inHold() {", "		if true {",
		[]string{"lock:TestHoldInHoldReleasesNothing"},
	},
	{
		"granted-for-another", "a plain Acquire has its own lease, not that of a caller who has left", "lock/ticket.go",
		"w.plain && c.args.lease < w.ttl && until", "false && until",
		[]string{"lock:TestAcquireLastsForItsOwnTTL"},
	},
	{
		"late-answer-tells-nobody", "queues are told of a release that is answered late", "lock/lock.go",
		"			l.report(&there.ls.keys, there.reply.queues)\n", "",
		[]string{"lock:TestLateAnswerTellsQueues"},
	},
	{
		"covered-by-the-last-call", "a section is covered if it was when Release was called first", "lock/lock.go",
		" // else an earlier Release got no answer\n", " else {\n		lk.covered = between(now, lk.expires) > 0\n	}\n",
		[]string{"lock:TestReleaseAgainAfterTheLease"},
	},
	{
		"refused-by-who-left", "no refusal names a holder that was followed by this process", "lock/ticket.go",
		"	s.refused, s.holder, s.left = false, \"\", 0", "",
		[]string{"lock:TestNoRefusalByWhoHasLeft"},
	},
	{
		"ghost-of-a-panic", "who waits no more because its backoff panicked leaves the line", "lock/acquire.go",
		"		if answered {", "		if answered || true {",
		[]string{"lock:TestBackoffThatPanics"},
	},
	{
		"all-but-those-over", "of several locks of a quorum none is returned if one is over", "lock/all.go",
		"		if past(lk.Expires()) {", "		if past(lk.Expires()) && false {",
		[]string{"lock:TestTryAcquireAllReturnsNoneThatIsOver"},
	},
	{
		"all-given-back-first", "TryAcquireAll on a quorum returns when its context ends", "lock/all.go",
		"		case <-done:\n		case <-ctx.Done():\n			return\n		}\n	}\n}\n", "		case <-done:\n		}\n	}\n}\n",
		[]string{"lock:TestTryAcquireAllOnAQuorumEndsWithItsContext"},
	},
	{
		"shed-leaves-the-lane", "an acquire that a busy node is spared does not touch its token's lane", "lock/round.go",
		"	if shed && q.open[node] >= maxOpen {\n", "	if shed && q.open[node] >= maxOpen {\n		delete(q.lanes, id)\n",
		[]string{"lock:TestLaneOutlivesWhatIsShed"},
	},
	{
		"spared-node-asked", "a node that hangs is not asked to release what it was not asked for", "lock/quorum.go",
		"	r.spare = func(i int) bool { return slices.Contains(a.spared, i) }\n", "",
		[]string{"lock:TestHungNodeIsNotAskedToReleaseWhatItWasSpared"},
	},
	{
		"release-blames-nobody", "a release without a majority says which nodes are silent, whatever NodeTimeout is", "lock/quorum.go",
		"min(q.l.cfg.NodeTimeout, releaseTimeout*9/10)", "q.l.cfg.NodeTimeout",
		[]string{"lock:TestQuorumReleaseSaysWhichNodesAreSilent"},
	},
	{
		"mailbox-for-ever", "a mailbox that cannot be subscribed to ends when nobody waits", "lock/mailbox.go",
		"			m.forget() // it failed, and nobody waits\n", "",
		[]string{"lock:TestMailboxWithoutSubscriptionEnds"},
	},
	{
		"adopt-any", "adopt compares the token", "lock/adopt.lua",
		"  if string.sub(held, 1, #ARGV[1] + 1) ~= ARGV[1] .. ' ' then return 0 end\n", "",
		[]string{"lock:TestAdopt"},
	},
	{
		"empty-is-free", "a foreign lock without a value is held", "lock/script.go",
		"r.held, r.left = left != -2, ms(left)\n	fence", "r.held, r.left = r.value != \"\", ms(left)\n	fence",
		[]string{"lock:TestForeignLockWithoutAValue"},
	},
	{
		"adopt-no-laggard", "a node that lags behind the fence counts when a quorum's lock is taken over", "lock/quorum.go",
		"	lagging.margin = q.l.cfg.FenceMargin\n", "",
		[]string{"lock:TestQuorumAdoptsThoughANodeLags"},
	},
	{
		"disowned-without-limit", "MaxHold holds for a section that has given its lock away", "lock/adopt.go",
		"		at, cause := ls.ends()\n", "		at, cause := ls.deadline, ErrNotHeld\n",
		[]string{"lock:TestMaxHoldOfADisownedSection"},
	},
	{
		"adopt-says-acquire", "Adopt says what was not done when its context has ended", "lock/try.go",
		"cutOff(ctx, adopt.op(), &k)", "cutOff(ctx, \"acquire\", &k)",
		[]string{"lock:TestAdoptWithAnEndedContext"},
	},
	{
		"token-of-the-next", "a section that is over has no token", "lock/adopt.go",
		"	if lk.ls.cur != lk && !lk.disowned {", "	if lk.ls.cur != lk && lk.ls.cur == nil {",
		[]string{"lock:TestTokenOfASectionThatIsOver"},
	},
	{
		"released-by-nobody", "hooks tell of no lock that nobody got", "lock/lock.go",
		"hook != nil && lk.returned {", "hook != nil {",
		[]string{"lock:TestHooksTellOfLocksThatSomebodyGot"},
	},
	{
		"last-attempt-only", "an error after a lost answer is ambiguous", "internal/attempts/attempts.go",
		"	if before > 0 {", "	if before > 99 {",
		[]string{"lock:TestLostReplyBeforeAnErrorIsAmbiguous", "internal/attempts:TestErr"},
	},
	{
		"forgotten-claim", "a claim that is sent again when it is forgotten leaves no lease behind", "internal/script/claim.lua",
		"if unrecorded and call('HGET', lots, tok) then divide(tok) end", "",
		[]string{"listq:TestClaimSentAgainWhenItIsForgotten"},
	},
	{
		"mark-like-an-id", "what a script writes for a moment is no id", "internal/script/claim.lua",
		"local long = '\\0' .. string.rep('-', 65)", "local long = string.rep('-', 65)",
		[]string{"listq:TestNoIDIsInTheWayOfAScript"},
	},
	{
		"hint-of-no-lock", "a hint names a lock", "listq/queue.go",
		"	if err := CheckLock(lock); err != nil {\n		return fmt.Errorf(\"listq: promote", "	if err := CheckLock(\"\"); err != nil {\n		return fmt.Errorf(\"listq: promote",
		[]string{"listq:TestHintsAreOfLocks"},
	},
	{
		"mover-claims", "who only moves leases nothing", "listq/feed.go",
		"	if f.failures[lane0] > 0 && f.handler != nil {", "	if f.failures[lane0] > 0 {",
		[]string{"listq:TestMoveLeasesNothing"},
	},
	{
		"failed-settlement-acked", "a settlement that failed is tried again though the handler returns nil", "listq/consume.go",
		"		if err == nil && d.unsettled() == nil {", "		if err == nil {",
		[]string{"listq:TestSettlementThatFailedIsNoSuccess"},
	},
	{
		"no-write-back", "a majority knows the fence before a quorum's lock is entered", "lock/quorum.go",
		"if agree < q.majority && !q.noRaise {", "if agree < 0 && !q.noRaise {",
		[]string{"lock:TestQuorumFencesGrow", "lock:TestQuorumWriteBackCommands"},
	},
	{
		"raise-counts-all", "only nodes that still hold the token acknowledge a fence", "lock/raise.lua",
		"return redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0", "return 1",
		[]string{"lock:TestRaiseCountsHoldersOnly"},
	},
	{
		"votes-kept", "votes short of a majority are taken back", "lock/quorum.go",
		"	if !answered || mayHaveGranted(c) {", "	if false {",
		[]string{"lock:TestQuorumLeavesNoOrphan"},
	},
	{
		"discard-any", "a vote is taken back by its own token", "lock/discard.lua",
		"if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end\n", "",
		[]string{"lock:TestDiscardComparesTheToken"},
	},

	// The resource's side.
	{
		"memory-lets-stale-in", "a smaller fence is refused, in memory", "fence/memory.go",
		"if fence < k.seen && !k.gone {", "if false {",
		[]string{"fence:TestMemoryOrdersHolders", "fence:TestMemoryLostUpdate"},
	},
	{
		"memory-register-stays", "a larger fence raises the register, in memory", "fence/memory.go",
		"	k.seen = fence\n", "",
		[]string{"fence:TestMemoryOrdersHolders", "fence:TestMemoryLostUpdate"},
	},
	{
		"redis-lets-stale-in", "a smaller fence is refused, in Redis", "fence/guard.lua",
		"  if fence < seen then return", "  if false then return",
		[]string{"fence:TestRedisOrdersHolders", "fence:TestRedisLostUpdate"},
	},
	{
		"redis-register-stays", "a larger fence raises the register, in Redis", "fence/guard.lua",
		"  elseif fence > seen then redis.call('SET', KEYS[1], ARGV[1]) end", "  end",
		[]string{"fence:TestRedisOrdersHolders", "fence:TestRedisLostUpdate"},
	},

	// The loops of the queues.
	{
		"ack-first", "a request is acknowledged after its handler", "listq/consume.go",
		"	return c.handler(ctx, d)", "	_ = d.Ack(ctx)\n	return c.handler(ctx, d)",
		[]string{"listq:TestBackoffGivesUp", "listq:TestDrain", "listq:TestNackedRequestComesBackOnTime"},
	},
	{
		"lost-lease-goes-on", "the context ends with the lease", "listq/consume.go",
		"		cancel(ErrStale)\n", "",
		[]string{"listq:TestLostLeaseEndsTheContext"},
	},
	{
		"leases-not-renewed", "a running request's lease is renewed", "listq/consume.go",
		"	every := c.queue.cfg.Lease / 3\n", "	every := c.queue.cfg.Lease * 3\n",
		[]string{"listq:TestRenewalKeepsALongRequest"},
	},
	{
		"panic-kills", "a handler's panic ends nothing but the handler", "listq/consume.go",
		"		v := recover()\n", "		var v any\n",
		[]string{"listq:TestPanicAndGoexitCountAnAttempt"},
	},
	{
		"claimed-dropped", "what was claimed and cannot start is handed back", "listq/feed.go",
		"			c.handBack(ctx, batch)\n", "			_, _ = ctx, batch\n",
		[]string{"listq:TestLostClaimHoldsMoreThanThereAreSlots", "listq:TestDrain"},
	},
	{
		"lost-claim-kept", "a stopping feeder hands back a claim whose reply was lost", "listq/feed.go",
		"		if f.failures[i] == 0 || f.handler == nil {", "		if true {",
		[]string{"listq:TestStoppingHandsBackALostClaim"},
	},
	{
		"more-than-slots", "no more handlers run than there are slots", "listq/feed.go",
		"		case free > 0:\n			free--\n", "		case true:\n			free = max(free-1, 0)\n",
		[]string{"listq:TestLostClaimHoldsMoreThanThereAreSlots"},
	},
	{
		"ahead-impatient-late", "what waits for a slot goes back after a few milliseconds", "listq/ahead.go",
		"waited < patience {\n		return nil, patience - waited", "waited < 200*patience {\n		return nil, 200*patience - waited",
		[]string{"listq:TestClaimedAheadGoesBack"},
	},
	{
		"ahead-unwatched", "somebody looks at how long a request has waited for a slot", "listq/feed.go",
		"	if !f.impatient && f.ahead.len() > 0 {", "	if false {",
		[]string{"listq:TestClaimedAheadGoesBack"},
	},
	{
		"ahead-not-paused", "who had to give back claims no more ahead for now", "listq/feed.go",
		"		f.pace.paused = f.pace.paused || len(back) > 0\n", "",
		[]string{"listq:TestWhatWentBackStaysBack"},
	},
	{
		"ahead-kept-at-the-end", "a consumer that ends hands back what it claimed ahead", "listq/feed.go",
		"	c.giveBack(c.ahead.close())\n", "	c.ahead.close()\n",
		[]string{"listq:TestStopWithRequestsAhead"},
	},
	{
		"ahead-back-in-disorder", "what goes back keeps its order", "listq/feed.go",
		"for _, batch := range slices.Backward(slices.Collect(slices.Chunk(all, script.Bound))) {", "for batch := range slices.Chunk(all, script.Bound) {",
		[]string{"listq:TestWhatGoesBackKeepsItsOrder"},
	},
	{
		"ahead-back-too-late", "what a single worker gives back is there for its next claim", "listq/feed.go",
		"		if f.awaitGone(ctx); ctx.Err() != nil {\n", "		if ctx.Err() != nil {\n",
		[]string{"listq:TestSingleWorkerKeepsTheOrder"},
	},
	{
		"ahead-overtaken", "what was claimed ahead comes before the next answer", "listq/feed.go",
		"		free += f.startAhead(f.place.take(len(all)-free, false))", "		free += f.place.take(len(all)-free, false)",
		[]string{"listq:TestWhatIsAheadComesFirst"},
	},
	{
		"exchanges-take-turns", "the next claim is under way while the last is handed out", "listq/feed.go",
		"	if !x.More || ctx.Err() != nil {", "	if !x.More || ctx != nil {",
		[]string{"listq:TestTheNextClaimDoesNotWaitForTheLast"},
	},
	{
		"ahead-of-the-slow", "nothing is claimed ahead of slow handlers", "listq/ahead.go",
		"	case p.paused || mean > trips:\n		return 0\n", "	case p.paused:\n		return 0\n	case mean > trips:\n		return slots\n",
		[]string{"listq:TestHowMuchIsClaimedAhead"},
	},
	{
		"ahead-by-long-trips", "a long round trip is no reason to claim far ahead", "listq/ahead.go",
		"trips := 2 * min(p.took, patience)", "trips := 2 * p.took",
		[]string{"listq:TestHowMuchIsClaimedAhead"},
	},
	{
		"ahead-suspects", "whose worker died is claimed for a free slot only", "listq/feed.go",
		"		case ahead > 0 && !died(d.Deliveries, d.Attempts, d.Deferrals):", "		case ahead > 0:",
		[]string{"listq:TestSuspectsAreNotClaimedAhead"},
	},
	{
		"ahead-of-suspects", "nobody stands behind whose worker died", "listq/feed.go",
		"f.pace.paused = suspect(x.Items[min(free, len(x.Items)):]) || f.pace.paused", "f.pace.paused = f.pace.paused",
		[]string{"listq:TestSuspectsAreNotClaimedAhead"},
	},
	{
		"ahead-past-its-lease", "a handler starts only while its request's lease runs", "listq/ahead.go",
		"len(a.waiting) == 0 || a.waiting[0].left() <= 0 {", "len(a.waiting) == 0 {",
		[]string{"listq:TestAheadLeaseRunsOut"},
	},
	{
		"slot-kept-by-the-busy", "a slot goes to another queue that wants it", "listq/consume.go",
		"	if c.place.wanted() {", "	if false {",
		[]string{"listq:TestWantedSlotGoesToTheOther"},
	},
	{
		"failing-claims-hurry", "after a claim that failed the next waits", "listq/feed.go",
		"	if paused {\n", "	if false {\n",
		[]string{"listq:TestClaimsThatFailPause"},
	},
	{
		"drain-counted-late", "the drain timeout counts from the stop", "listq/consume.go",
		"outlive(c.base, ctx, c.cfg.DrainTimeout)", "outlive(c.base, ctx, c.cfg.DrainTimeout+5*time.Second)",
		[]string{"listq:TestDrainTimeoutCountsFromTheStop"},
	},
	{
		"starts-after-the-stop", "a consumer that stops starts nothing more", "listq/feed.go",
		"	defer context.AfterFunc(ctx, c.ahead.stop)()", "",
		[]string{"listq:TestStopStartsNothingMore"},
	},
	{
		"starts-after-its-lease", "what waited for longer than its lease is not started", "listq/ahead.go",
		"	return !a.stopped && d.left() > 0\n", "	return true\n",
		[]string{"listq:TestNothingStartsAfterItsLease"},
	},
	{
		"grace-for-each", "what is not acknowledged while Redis is away delays the end once", "listq/consume.go",
		"		f.done = f.done[n:]\n		if err == nil {\n", "		f.done = f.done[n:]\n		if err != errExited {\n",
		[]string{"listq:TestManyAcksDoNotDelayTheEnd"},
	},
	{
		"grace-for-all", "what is finished late is acknowledged", "listq/consume.go",
		"		f.done = f.done[n:]\n		if err == nil {\n", "		f.done = f.done[n:]\n		if err == errExited {\n",
		[]string{"listq:TestLateHandlersAreAcknowledged"},
	},
	{
		"drain-counts", "a handler that the drain ended counts no attempt", "listq/consume.go",
		"if errors.Is(cause, ErrStale) || errors.Is(cause, ErrDraining) {", "if errors.Is(cause, ErrStale) {",
		[]string{"listq:TestDrain"},
	},
	{
		"clock-not-handed-over", "a stopping feeder hands over the clock and a token", "listq/feed.go",
		"if err := q.script.Yield(ctx, q.feeder, waker); err != nil {", "if err := error(nil); err != nil && waker != \"\" {",
		[]string{"listq:TestStoppedFeederLeavesATokenAndNoClock"},
	},
	{
		"no-poll", "everybody looks once a poll", "listq/feed.go",
		"	wait := jitter(f.queue.cfg.Poll)\n", "	wait := time.Hour\n",
		[]string{"listq:TestPollOnly", "listq:TestIdleConsumerIsQuiet", "listq:TestLostTokenCostsAPoll"},
	},
	{
		"pop-cut-off", "a consumer that stops loses nothing that is handed to it", "listq/waker.go",
		"defer context.AfterFunc(cut, conn.close)()", "defer context.AfterFunc(ctx, conn.close)()",
		[]string{"listq:TestStopLosesNoHandOver"},
	},
	{
		"hand-from-receipt", "the lease of what is handed over counts from the push", "listq/queue.go",
		"at.Before(began) {", "false && at.Before(began) {",
		[]string{"listq:TestHandedLease"},
	},
	{
		"hand-from-the-future", "a lease that was handed over began by now", "listq/queue.go",
		"at.Before(began) {", "!at.IsZero() {",
		[]string{"listq:TestHandedLease"},
	},
	{
		"hand-without-anchor", "without an answered claim a lease that was handed over has ended", "listq/queue.go",
		"began = began.Add(-h.Lease)", "began = began.Add(0)",
		[]string{"listq:TestHandedLease", "listq:TestHandOverGoesBack"},
	},
	{
		"hand-too-late", "what is handed over too late goes back", "listq/waker.go",
		"case d.left() > 0 && ctx.Err() == nil &&", "case ctx.Err() == nil &&",
		[]string{"listq:TestHandOverGoesBack"},
	},
	{
		"hand-to-who-stops", "what is handed to a consumer that stops goes back", "listq/waker.go",
		"case d.left() > 0 && ctx.Err() == nil &&", "case d.left() > 0 &&",
		[]string{"listq:TestHandOverGoesBack"},
	},
	{
		"hand-not-renewed", "a handler keeps what was handed to it", "listq/consume.go",
		"				extendIn(min(left/3, time.Until(at)))\n", "				_ = at\n",
		[]string{"listq:TestHandOverIsRenewed"},
	},
	{
		"hurry-waits", "a lease's end is watched while an extension is under way", "listq/consume.go",
		"		case <-c.hurry:\n", "		case <-map[bool]chan struct{}{true: c.hurry}[answer == nil]:\n",
		[]string{"listq:TestLeaseIsWatchedWhileAnExtensionHangs"},
	},
	{
		"late-claim-unwatched", "a lease's end is watched that comes before those known of", "listq/consume.go",
		"	soon := left < time.Until(c.watched)\n", "	soon := false\n",
		[]string{"listq:TestLateClaimsLeaseIsWatched"},
	},
	{
		"extension-put-off", "an extension is brought forward only", "listq/consume.go",
		"extendIn(min(left/3, time.Until(at)))", "at = at.Add(0)\n				extendIn(min(left/3, every))",
		[]string{"listq:TestShortLeasesPutNoExtensionOff"},
	},
	{
		"hand-long", "what is handed to a process that dies is late by a poll", "listq/queue.go",
		"Listen: 2 * max(cfg.Poll, leastLease),", "Listen: 20 * max(cfg.Poll, leastLease),",
		[]string{"listq:TestLostTokenCostsAPoll", "listq:TestHandOverIsRenewed"},
	},
	{
		"nobody-listens", "a push to an idle queue is handed over", "listq/feed.go",
		"hearing{wake: f.listening.Load(), offers:", "hearing{offers:",
		[]string{"listq:TestIdleConsumerIsHandedTheRequest"},
	},
	{
		"waker-never-pauses", "the waker pauses while no slot is free", "listq/waker.go",
		"freed != nil || c.more.Load() {", "freed != nil && ctx.Err() != nil {",
		[]string{"listq:TestBusyConsumerIsQuiet"},
	},
	{
		"stale-tells-nobody", "a worker whose settlement was stale promotes the next", "listq/delivery.go",
		"if d.Lock != \"\" && verb != \"park\" {", "if false {",
		[]string{"listq:TestStaleSettlementPromotes", "listq:TestStaleWorkerChangesNothing"},
	},
	{
		"payload-unlimited", "a payload over the limit is refused", "listq/request.go",
		"limit > 0 && len(r.Payload) > limit {", "limit < 0 {",
		[]string{"listq:TestInvalidRequests", ".:TestFaultPayloadCannotBeStored"},
	},
	{
		"undecodable-stays", "a request that cannot be decoded is dead", "listq/feed.go",
		"		b.bury(ctx)\n", "		_, _ = b, ctx\n",
		[]string{"listq:TestCapsMakeRequestsDead"},
	},
	{
		"max-wait-not-stored", "a request takes its longest wait along", "listq/request.go",
		"Lock: r.Lock, MaxWait: r.MaxWait, New: made}, nil", "Lock: r.Lock, New: made}, nil",
		[]string{"delayq:TestMaxWaitAndDeferrals"},
	},
	{
		"max-deferrals-ignored", "a request that was deferred too often is dead", "delayq/queue.go",
		"		return s.Park(ctx, l, after, maxDeferrals)", "		return s.Park(ctx, l, after, 0)",
		[]string{"delayq:TestParkingIsCapped"},
	},
	{
		"look-promotes-nobody", "who parked and finds the lock free promotes", "delayq/queue.go",
		"	case !held:\n		return q.Hint(ctx, lock)\n", "	case !held:\n		return nil\n",
		[]string{"delayq:TestRegisterClosesTheGap"},
	},
	{
		"blind-probe", "a probe looks before it promotes", "delayq/queue.go",
		"	if !held {\n		return q.Hint(ctx, lock)", "	if held = false; !held {\n		return q.Hint(ctx, lock)",
		[]string{"delayq:TestProbeLooksBeforeItPromotes"},
	},

	// The calls.
	{
		"no-look-after-parking", "a direct call looks at the lock after it parked", "queue.go",
		"		q.announce(ctx, p, req.Lock)\n", "",
		[]string{".:TestLostWakeUp"},
	},
	{
		"no-look-of-a-worker", "a worker looks at the lock after it parked", "queue.go",
		"		q.announce(ctx, p, d.Lock)\n", "",
		[]string{".:TestLostWakeUpOfAWorker"},
	},
	{
		"release-tells-nobody", "a release tells the queues that it names", "sidestep.go",
		"		a.hint(ctx, s.key, s.queue, held)\n", "		_ = held\n",
		[]string{".:TestDeferredRunsOnceWhenTheLockIsReleased"},
	},
	{
		"plain-release-tells-nobody", "a release that no Acquirer made tells those who listen", "lock/lock.go",
		"		l.tell(&ls.keys, lk.reported, lk.unsure)\n", "",
		[]string{".:TestDeferredRunsWhenTheLockerReleases"},
	},
	{
		"release-told-twice", "an Acquirer tells of its own releases, and nobody else", "sidestep.go",
		"			reports.Take(lk) // hint tells\n", "			_ = reports.Take\n",
		[]string{".:TestWorkerTellsItsOwnQueueOnce"},
	},
	{
		"relay-past-the-line", "a section passes its lock on only if nobody stands in line", "lock/relay.lua",
		" and redis.call('EXISTS', KEYS[3]) == 0 then", " then",
		[]string{"lock:TestRelayLetsWaitersIn", lockTable},
	},
	{
		"relay-past-the-parked", "a section passes its lock on only if no other queue has registered", "lock/relay.lua",
		"  if #queues == 0 or #queues == 1 and queues[1] == ARGV[6] then", "  do",
		[]string{"lock:TestRelayTellsQueues", lockTable},
	},
	{
		"relay-any", "a lock is passed on by its holder", "lock/relay.lua",
		"if had == ARGV[1] and", "if had and",
		[]string{lockTable},
	},
	{
		"relay-one-token", "the next section of a relay has a token of its own", "lock/relay.go",
		"value: l.newValue(lk.leg.owner),", "value: ls.value,",
		[]string{"lock:TestRelay"},
	},
	{
		"relay-again-mints", "a lock that is passed on again by the same command stays passed on", "lock/relay.lua",
		"if had == ARGV[4] then", "if false then",
		[]string{lockTable},
	},
	{
		"relay-kept", "a lock that no section comes for is released", "lock/relay.go",
		"time.AfterFunc(relayTime, b.ring)", "time.AfterFunc(time.Hour, b.ring)",
		[]string{"lock:TestRelayEnds"},
	},
	{
		"relay-end-too-early", "a relay that is ended while its lock is passed on releases it then", "lock/relay.go",
		"	b.unwanted = true\n", "",
		[]string{"lock:TestRelayEnds"},
	},
	{
		"relay-for-ever", "a lock is released after so many sections", "lock/relay.go",
		"lk.leg.n >= relaySections", "lk.leg.n >= 1000*relaySections",
		[]string{"lock:TestRelayLetsTriesIn"},
	},
	{
		"relay-of-a-failure", "a section that failed releases its lock", "lock/hold.go",
		"returned && err == nil", "returned",
		[]string{"lock:TestRelayOfAFailedSection"},
	},
	{
		"relay-of-a-panic", "a section that panicked releases its lock", "lock/hold.go",
		"returned := false", "returned := true",
		[]string{"lock:TestRelayOfAFailedSection"},
	},
	{
		"relay-lost", "what a command without an answer may have passed on is given back", "lock/relay.go",
		"	case err != nil:\n		b.drop()", "	case err != nil:\n		b.state = dropping\n		b.end()",
		[]string{"lock:TestRelayLosesNothing"},
	},
	{
		"relay-lost-next", "both tokens of a command without an answer are given back", "lock/relay.go",
		"			r = l.undone(b.ls.keys, b.ls.value, \"\")\n", "",
		[]string{"lock:TestRelayLosesNothing", "lock:TestRelayEnds"},
	},
	{
		"relay-past-its-lease", "a lock whose lease is over is not entered, but given back first", "lock/relay.go",
		"	if b.state == kept && (b.ls.given || past(b.ls.deadline)) {", "	if false {",
		[]string{"lock:TestRelayPastItsLease", "lock:TestRelayPastItsLeaseIsNotInItsOwnWay"},
	},
	{
		"relay-outlives-close", "a Locker that closes releases what was passed on", "lock/locker.go",
		"			b.refuse()\n", "			_ = b\n",
		[]string{"lock:TestRelayGivenUp"},
	},
	{
		"relay-silent", "the queues that the end of a relay frees the lock for are told", "lock/relay.go",
		"	l.report(&ls.keys, r.queues)\n", "",
		[]string{"lock:TestRelayTellsQueues"},
	},
	{
		"relay-across-settings", "a relay is one of sections with the same settings", "lock/relay.go",
		"id := relayID{name, s.owner, s.relay.queue, s.ttl}", "id := relayID{name, l.cfg.Owner, \"q\", l.cfg.TTL}",
		[]string{"lock:TestRelayOptions"},
	},
	{
		"relay-in-its-own-way", "a lock that is being given back is waited for", "lock/relay.go",
		"		wait(b.gone)\n", "		_ = b.gone\n",
		[]string{"lock:TestRelayIsNotInItsOwnWay"},
	},
	{
		"relay-without-a-last", "the last section of a relay releases its lock", "lock/relay.go",
		"	case !s.relay.passes:\n		lk.leg = nil\n", "	case !s.relay.passes:\n		_ = lk\n",
		[]string{"lock:TestLastOfRelay"},
	},
	{
		"line-of-refused", "nothing is passed on in a queue of which a task would not park the next request", "task.go",
		"passes: d.Follows && !t.queue.minded.Load() && ", "passes: d.Follows && ",
		[]string{".:TestLineOfRefusedIsNotInItsOwnWay", ".:TestLineOfAProcessThatStopsRefusesNobody"},
	},
	{
		"line-before-a-retry", "a worker that waits for its lock takes over what was passed on", "lock/acquire.go",
		"l.passedOn(ctx, name, opts), error(nil)", "(*Lock)(nil), error(nil)",
		[]string{"lock:TestDoEndsARelay", ".:TestShortRetryIsNotInItsOwnWay"},
	},
	{
		"relay-outlives-run", "a queue that stops waits until what it passed on is released", "queue.go",
		"	q.endRelays(ctx)\n	return", "	return",
		[]string{".:TestLineEndsWithRun"},
	},
	{
		"relays-end-unwaited", "what a queue's relays passed on is released when EndRelays returns", "lock/relay.go",
		"		case <-b.gone:\n		case <-ctx.Done():\n			return\n", "		case <-b.gone:\n		case <-ctx.Done():\n			return\n		default:\n",
		[]string{"lock:TestEndRelays"},
	},
	{
		"relay-drop-silent", "who listens is told of what the end of a relay frees", "lock/relay.go",
		"		l.unlock()\n		l.report(&b.ls.keys, r.queues)\n", "		l.unlock()\n",
		[]string{"lock:TestRelayTellsQueues"},
	},
	{
		"relay-closed-while-awaited", "Close releases what a section waits for", "lock/locker.go",
		"			b.refuse()\n", "			b.unwant()\n",
		[]string{"lock:TestCloseReleasesWhatIsAwaited"},
	},
	{
		"lost-answer-no-slot", "what a lost answer held is asked for although no slot is free", "listq/feed.go",
		"	if f.failures[lane0] > 0 && f.handler != nil {\n		n = max(n, 1) // for what the lost answer held\n	}\n", "",
		[]string{"listq:TestLostAnswerAndThenNoFreeSlot"},
	},
	{
		"slot-not-in-line", "a feeder without a free slot stands in line for one", "listq/feed.go",
		"	for free == 0 && !due { // until", "	for false { // until",
		[]string{"listq:TestStandsInLineForASlot"},
	},
	{
		"added-unwatched", "what the second lane adds is watched", "listq/feed.go",
		"		f.mu.Lock() // before, so that what the other lane adds now is not overlooked\n		back, wait := f.ahead.impatient()\n", "		back, wait := f.ahead.impatient()\n		f.mu.Lock()\n",
		[]string{"listq:TestWhatIsAddedIsWatched"},
	},
	{
		"rest-of-the-finished", "the rest of many finished follows at once", "listq/feed.go",
		"	if len(f.done) > 0 {\n		signal(f.kick)\n	}\n", "",
		[]string{"listq:TestRestOfTheFinished"},
	},
	{
		"lost-release-tells-nobody", "a release whose answer was lost tells all queues that it knows", "lock/lock.go",
		"	lk.unsure = !d.reply.released && lk.covered\n", "",
		[]string{".:TestLostReleaseTellsTheQueues"},
	},
	{
		"lost-relay-tells-nobody", "so does the command of a relay whose answer was lost", "lock/relay.go",
		"		lost = !r.released", "		lost = false",
		[]string{"lock:TestLostAnswerOfARelayIsReported"},
	},
	{
		"lost-drop-tells-nobody", "and what gives back a lock that was passed on", "lock/relay.go",
		"		if covered && !r.released {", "		if covered && false {",
		[]string{"lock:TestLostAnswerOfARelayIsReported"},
	},
	{
		"early-release-told-late", "a release from within its section tells at once", "lock/lock.go",
		"	if !held {\n		lk.taken = false", "	if false {\n		lk.taken = false",
		[]string{".:TestEarlyReleaseTellsTheQueues"},
	},
	{
		"namesake-not-told", "a worker tells a queue that has the name of its own", "sidestep.go",
		"own != nil && sameQueue(q, own)", "own != nil && name == own.List().Key()",
		[]string{".:TestTwoQueuesOfOneName"},
	},
	{
		"line-past-a-namesake", "nothing is passed on past another queue of the same name", "task.go",
		" && a.known.alone(p.delay),", ",",
		[]string{".:TestLineOfTwoQueuesOfOneName"},
	},
	{
		"exit-by-the-queue", "a handler that ends its goroutine fails by the task's rules", "task.go",
		"		if returned {\n", "		if returned || v == nil {\n",
		[]string{".:TestMaxAttemptsHoldsHoweverItFails"},
	},
	{
		"split-is-free", "a lock whose votes are split is not free", "lock/quorum.go",
		"	case t.free >= q.majority:\n", "	case n < q.majority:\n",
		[]string{"lock:TestQuorumLookAtSplitVotes"},
	},
	{
		"split-unwatched", "who parked looks again at a lease that is about to end", "delayq/queue.go",
		"	case left <= soon:\n", "	case false:\n",
		[]string{".:TestSplitVotesAreWaitedFor"},
	},
	{
		"own-repetition", "a request that got its ID in the call is no duplicate", "task.go",
		"	return req, c.named, t.queue", "	return req, true, t.queue",
		[]string{".:TestOwnRepetitionIsNoDuplicate"},
	},
	{
		"enqueue-any-lock", "what can be no lock's name is not stored", "task.go",
		"	if req.Lock != \"\" {", "	if false {",
		[]string{".:TestEnqueueChecksTheLock"},
	},
	{
		"context-without-end", "a handler's context ends whatever QueueConfig.Context returns", "task.go",
		"	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })", "	stop := func() {}",
		[]string{".:TestContextKeepsItsEnd"},
	},
	{
		"ended-and-run", "a call whose context has ended runs nothing", "sidestep.go",
		"case s.key == \"\" && ctx.Err() != nil:", "case false:",
		[]string{".:TestEndedContextRunsNothing"},
	},
	{
		"line-never-ends", "a worker that nobody follows ends the relay at once", "queue.go",
		"				LineEnds:     func(key string) { q.acq.locker.EndRelay(key, p.list.Key()) },\n", "",
		[]string{".:TestLineTakesTwoCommandsARequest"},
	},
	{
		"line-releases", "a worker that follows another takes over its lock", "task.go",
		"passes: d.Follows &&", "passes: false &&",
		[]string{".:TestWorkerTellsItsOwnQueueOnce", ".:TestLineTakesTwoCommandsARequest"},
	},
	{
		"follows-elsewhere", "an exchange claims for the turns that it ends", "listq/feed.go",
		"	n = max(n, min(turns(f.done), script.Bound))", "	_ = turns(f.done)",
		[]string{"listq:TestClaimsForTheTurnsThatEnd"},
	},
	{
		"follows-from-afar", "the line ends with what goes back to the queue", "listq/feed.go",
		"		if d.Follows && c.cfg.LineEnds != nil {", "		if false {",
		[]string{"listq:TestLineEndsWithWhatGoesBack"},
	},
	{
		"follows-nobody", "a request that comes with the end of one of its lock follows that", "listq/feed.go",
		"			n.Follows = true", "			_ = n",
		[]string{"listq:TestFollows"},
	},
	{
		"lane-not-again", "what a lost answer to the second lane held is asked for again", "listq/feed.go",
		"	if f.failures[lane1] > 0 {\n		n = max(n, 1)", "	if false {\n		n = max(n, 1)",
		[]string{"listq:TestLostAnswerOfTheSecondLane"},
	},
	{
		"lane-not-left", "a consumer that ends asks for what lost answers to either lane held", "listq/feed.go",
		"		if f.failures[i] == 0 || f.handler == nil {", "		if f.failures[i] == 0 || f.handler == nil || i == lane1 {",
		[]string{"listq:TestLostAnswerOfTheSecondLane"},
	},
	{
		"lane-of-one", "a single worker gets its requests in order, by one claim at a time", "listq/feed.go",
		"	if c.cfg.Slots.size > 1 {", "	if c.cfg.Slots.size > 0 {",
		[]string{"listq:TestTwoClaimsUnderWay"},
	},
	{
		"lane-never", "two claims are under way while there is enough to do", "listq/feed.go",
		"			signal(f.pressing)\n		}\n	} else {", "		}\n	} else {",
		[]string{"listq:TestTwoClaimsUnderWay"},
	},
	{
		"lane-last-answer-counts", "of two claims under way the earlier time counts", "listq/feed.go",
		"alone && f.under == 0 || f.alarm.IsZero()", "alone || !alone || f.alarm.IsZero()",
		[]string{"listq:TestAlarmOfTwoLanes"},
	},
	{
		"lane-clock-of-its-own", "the lanes of a feeder have one clock", "internal/script/claim.lua",
		"string.match(ARGV[1], '^[^/]*')", "ARGV[1]", scripts("TestLanesKeepOneClock"),
	},
	{
		"lane-one-count", "the lanes of a feeder count their own claims", "internal/script/script.go",
		"	if f.Lane == 0 {", "	if true {",
		[]string{"internal/script:TestLanesCountTheirOwnClaims", scriptModel},
	},
	{
		"worker-tells-itself", "a worker leaves its own queue to its acknowledgement", "sidestep.go",
		"if own != nil && sameQueue(q, own) {", "if false {",
		[]string{".:TestWorkerTellsItsOwnQueueOnce"},
	},
	{
		"ended-context-defers", "a call whose context ended stores nothing", "task.go",
		"	if cause := context.Cause(ctx); cause != nil {", "	if cause := context.Cause(ctx); false {",
		[]string{".:TestContextThatEndsAfterTheRefusal"},
	},
	{
		"unavailable-counts", "a lock that Redis did not give costs no attempt", "task.go",
		"		return d.Delay(ctx, unavailablePause, err.Error())", "		return t.failed(ctx, d, err)",
		[]string{".:TestLocksUnavailableBurnsNoAttempt"},
	},
	{
		"undecodable-payload-done", "a payload that cannot be decoded is dead, not done", "task.go",
		"		return d.Bury(ctx, \"undecodable payload: \"+err.Error())", "		return nil",
		[]string{".:TestFaultPayloadCannotBeDecoded"},
	},
	{
		"unknown-task-done", "a request of an unknown task is dead, not done", "queue.go",
		"					return d.Bury(ctx, fmt.Sprintf(\"unknown task %q\", d.Task))", "					return nil",
		[]string{".:TestFaultUnknownTask"},
	},
	{
		"heeded-is-definite", "what was sent when its context ended may have been carried out", "internal/script/until.go",
		"	case o.returned && ctx.Err() != nil && errors.Is(o.err, ctx.Err()):\n", "	case false:\n",
		[]string{"internal/script:TestUntilTheClientHasNoticed", ".:TestDeadlineThatTheClientHeedsIsAmbiguous"},
	},
	{
		"abandoned-is-not-announced", "what was stored when nobody waited any more is announced to its lock", "queue.go",
		"		ctx = context.WithoutCancel(ctx)\n", "",
		[]string{".:TestAbandonedParkRunsAtOnce"},
	},
	{
		"promoted-and-buried", "a promoted request that is dead is no success", "delayq/queue.go",
		"return b.ID == id }) {", "return false }) {",
		[]string{".:TestPromoteOfOneThatWaitedTooLong"},
	},
	{
		"age-with-the-way", "a request is no older for a claim that took long", "listq/delivery.go",
		"time.Since(a.answered)", "time.Since(a.sent)",
		[]string{"listq:TestAgeAfterALostClaim"},
	},
	{
		"one-grace-for-all", "what is finished after a short hole is acknowledged", "listq/consume.go",
		"		if failed == 1 {\n", "		if false {\n",
		[]string{"listq:TestLateHandlersAfterAShortHole"},
	},
	{
		"claims-after-the-stop", "a single worker claims nothing after its stop", "listq/feed.go",
		"		if f.awaitGone(ctx); ctx.Err() != nil {\n			return\n		}\n", "		f.awaitGone(ctx)\n",
		[]string{"listq:TestSingleWorkerClaimsNothingAfterItsStop"},
	},
	{
		"probe-outlives-consume", "Consume waits for its probes", "listq/consume.go",
		"q.Promote(context.WithoutCancel(ctx), lock)", "q.Promote(ctx, lock)",
		[]string{"listq:TestNothingIsLeftBehind"},
	},
	{
		"calls-outlast-contexts", "a call ends with its context though Redis does not answer", "internal/script/until.go",
		"	if ctx.Done() == nil {\n		return do(ctx)\n", "	if ctx.Err() == nil {\n		return do(ctx)\n",
		[]string{".:TestCallsEndWithTheirContextsThoughTheQueueHangs"},
	},
	{
		"queues-told-in-turn", "queues are told of a release all at once", "sidestep.go",
		"		telling.Go(func() {\n			if err := hint(); err != nil {", "		func(do func()) { do() }(func() {\n			if err := hint(); err != nil {",
		[]string{".:TestQueuesThatHangHoldUpASectionOnce"},
	},
	{
		"inspection-in-a-transaction", "an inspection that is refused leaves no replies behind", "internal/script/inspect.go",
		"q.rdb.Pipelined(ctx,", "q.rdb.TxPipelined(ctx,",
		[]string{".:TestRefusedInspectionsLeaveNoReplies"},
	},
	{
		"age-by-the-workers-clock", "a request's age is by the server's clock", "listq/delivery.go",
		"	if a := d.queue.anchor.Load(); a != nil {", "	if a := d.queue.anchor.Load(); false {",
		[]string{".:TestBackoffCountsByTheServersClock"},
	},
	{
		"promote-leaves-the-line", "who is promoted in line keeps the place, and the lock is looked at", "delayq/queue.go",
		"	if d == 0 {\n", "	if d < 0 {\n",
		[]string{".:TestPromoteInLine"},
	},
	{
		"undecodable-is-unavailable", "what cannot be decoded is no fault of Redis", "errors.go",
		"		return err // Redis has answered\n", "		return storeError{err}\n",
		[]string{".:TestGetOfAnUndecodableRequest"},
	},
	{
		"event-has-the-key", "an event has the lock's name, without the prefix", "sidestep.go",
		"ConflictEvent{Key: key, Owner", "ConflictEvent{Key: e.Key, Owner",
		[]string{".:TestNamesInEvents"},
	},
	{
		"outage-breaks-order", "StrictOrder keeps the order while the locks' Redis does not answer", "task.go",
		"			return d.DelayStrict(ctx, unavailablePause, err.Error())", "			return d.Delay(ctx, unavailablePause, err.Error())",
		[]string{".:TestStrictOrderThroughAnOutageOfTheLocks"},
	},
	{
		"refusal-is-a-failure", "a settlement that Redis refused is no failed attempt", "listq/consume.go",
		"	if again := d.unsettled(); again != nil {", "	if again := d.unsettled(); false {",
		[]string{".:TestRefusedNackKeepsTheTasksRules", ".:TestRefusedParkIsNoAttempt"},
	},
	{
		"order-not-strict", "StrictOrder keeps the order through failures", "task.go",
		"	case t.cfg.strict:", "	case false:",
		[]string{".:TestOrderAfterAFailure"},
	},
	{
		"unconfirmed-is-not-announced", "what may have been stored is announced to its lock", "queue.go",
		"case errors.Is(stored(ctx, err), ErrAmbiguous):", "case false:",
		[]string{".:TestUnconfirmedDeferralIsAnnounced"},
	},
	{
		"registry-of-each", "a release tells the queues of all Acquirers of its Locker", "sidestep.go",
		"		a.known = kept\n", "		_ = kept\n",
		[]string{".:TestReleaseByAnotherAcquirerOfTheLocker"},
	},
	{
		"wait-overflows", "what is due in centuries is due", "internal/script/script.go",
		"time.Duration(min(r.number(), maxMillis)) * time.Millisecond", "time.Duration(r.number()) * time.Millisecond",
		[]string{"delayq:TestDueInCenturies"},
	},
	{
		"lost-by-the-error", "a section is lost with its own lock, not with that of one inside it", "sidestep.go",
		" && more(err, own)) //", ") //",
		[]string{".:TestLostIsTheSectionsOwnLock"},
	},
	{
		"typed-nil-goes-on", "a nil pointer is no client", "internal/client/client.go",
		"return rdb == nil || v.Kind() == reflect.Pointer && v.IsNil()", "_ = v\n	return rdb == nil",
		[]string{"lock:TestConfigPanics", "listq:TestConstructorsPanic", "fence:TestNewRedisPanics"},
	},
	{
		"config-error-rounded", "an error of a Config has the value as it was given", "lock/config.go",
		"given.TTL, minTTL", "c.TTL, minTTL",
		[]string{"lock:TestConfigPanics"},
	},
}
