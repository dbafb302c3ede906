"""Two hundred sentences as people write them about parts, pictures and inspections. None states a measured fact of the
region at hand, so none can be right or wrong by measurement; many hold words that a careless reader would take for one.
"""

AUDITOR_SENTENCES = """
The part was presented to the camera by hand.
Two operators looked at this picture independently.
I could not find a matching entry in the defect catalogue.
This finding was discussed at the morning meeting.
The supplier has been informed and will send a replacement.
A sample was sent to the laboratory for a closer look.
Please have a person look at this part before it is shipped.
The drawing does not show any feature at this place.
No statement can be made about the back of the part.
The lens was cleaned before the second shift.
There was dust on the lens that day.
Lighting in the cell was changed last week, which may explain some of the variation.
The lower limit of the drawing is not affected.
The upper management has asked for a summary.
Whoever handled the part left a fingerprint behind.
Left-over coolant is common after this operation.
It may be left-over glue from the label.
A right angle between the two faces is required by the drawing.
Is this the right part for this order?
The inspector is right to ask for a second opinion.
The top priority is to contain the lot.
At the top of the list stands the customer complaint from March.
The bottom line is that nobody can tell from one picture.
We should get to the bottom of this.
In the middle of the shift the feeder was refilled.
The centre of attention was another part altogether.
The machining centre was serviced in April.
A bright operator noticed it first.
This is a bright idea, but it needs testing.
We were kept in the dark about the change of supplier.
A darker batch of material was delivered in spring.
The reference image is darker because another lamp was used.
The reference part had a longer burn-in.
The neighbouring part in the tray is much longer.
Other regions of this picture are larger.
The background is brighter than usual.
The whole picture is a little brighter than yesterday's.
The surface around it is rougher than specified.
Its surroundings are normal.
Surrounding areas show the usual grain.
The surrounding material is intact.
Compare with picture 12 of the training set.
See procedure VI-017, section 4, for the acceptance criteria.
Section 3.2 of the standard allows two such marks on each part.
The standard allows marks of up to 0.5 mm.
Marks below 0.2 mm are ignored by agreement with the customer.
A limit of 1.5 % applies to the whole lot.
The tolerance is 0.1 mm.
The part weighs 120 g.
The part is 85 mm long according to its drawing.
The belt moves at 40 mm per second.
The camera has 12 megapixels and sees 400 mm of belt.
Of 30 parts in this tray, 3 were set aside.
This is part 17 of 30.
It is the third such finding in this lot.
It happened twice last week.
The same thing was seen in lot 41.
Nothing like it was seen in earlier lots.
Nobody has seen anything like it before.
It was not there when the part left the press.
It was there before the part was washed.
It will probably come off with alcohol.
It can be wiped off with a cloth.
It could not be wiped off.
It feels smooth to the touch.
It feels rough under a fingernail.
It smells of burnt oil.
It reminds me of a problem that we had two years ago.
It would be wise to check the tool.
It needs a second look under the microscope.
It must be judged by a person.
It has been reported to the shift leader.
It has nothing to do with the coating.
It seems to come from the gripper.
It appears only on parts from cavity 3.
It is consistent with handling damage.
It is typical of a worn tool.
It is most likely a scratch.
It is probably harmless.
It is not a safety issue.
It is a cosmetic matter at most.
It is a matter of taste.
It is what the customer complained about.
It is worth a photograph.
It is unclear whether this is a defect.
It is hard to say what this is.
It is hard to see without magnification.
It is easy to overlook.
It is easier to see under grazing light.
It is better seen from the side.
It is only visible under ultraviolet light.
It is not visible on the X-ray.
It is clearly visible to the naked eye.
It is deeper than it looks.
It is not deep.
It is shallow and flat.
It is sharp to the touch.
It is soft and can be moved.
It is shiny.
It is dull and porous.
It is wet.
It is made of the same material as the part.
It is magnetic.
It is raised above the surface.
It is under the coating.
It is close to the serial number.
It is near a bolt hole.
It is near another mark.
It is next to the cooling channel.
It lies between two ribs.
It lies behind the flange.
It lies across the weld seam.
It follows the direction of grinding.
It runs along the edge of the seal.
It runs through several layers of paint.
It starts at a sharp corner and ends at a burr.
It starts thin and gets wider.
It is wider at one end.
It is thicker in places.
It gets fainter towards its tip.
It is darker at one end than at the other.
It has a darker core.
It has a bright spot in it.
It has a fuzzy outline.
It has no clear border.
It has the look of corrosion.
It has grown since the last inspection.
It has changed since yesterday.
It shows signs of wear.
It shows no sign of corrosion.
It shows the same texture as the rest.
It contains small particles.
It covers an engraved number.
It covers what looks like a machining mark.
It reaches under the gasket.
It touches the mounting hole.
It touches the weld.
It ends just before the chamfer.
It looks like a hair.
It looks like a drop of paint.
It looks like the mark of a clamp.
It looks worse than it is.
It looks different on the monitor.
It looks much the same on every picture.
There is no evidence of a crack.
There is no reason to stop the line.
There is some doubt about its nature.
There is more of it on the inner side.
There is a hole in the plan, not in the part.
There are similar marks on other parts.
There are two explanations.
There were no such marks in the first article.
A crack cannot be ruled out.
A dent of this kind is usually caused by dropping.
A stain would look different.
A long discussion followed.
A small deviation from the plan was approved.
A large share of the lot has been inspected.
A round table on quality is planned.
A narrow majority voted for release.
A compact camera was used for the close-up.
Compact parts are easier to photograph.
Long parts bend in the washer.
Elongated parts have to be turned before they are inspected.
Irregular deliveries made planning difficult.
An irregular pattern of complaints emerged.
A red flag was raised by the customer.
Red tags are attached to rejected parts.
The green light for production was given at ten o'clock.
At 3 o'clock in the afternoon the lamp failed.
The shift ends at six o'clock.
The clock on the wall was wrong.
Yellow light was used by mistake.
A bluish lamp had been fitted.
The blue tray is for parts that wait.
The customer prefers a lighter coating.
Less bright lamps would help.
More light is needed.
Horizontal storage is required.
Vertical integration is the aim.
The conveyor runs diagonally through the hall.
The part was turned by 90 degrees between two pictures.
Turn the part by 180° and look again.
The tool is inclined at 15° to the table.
Heat treatment at 450 °C took two hours.
The edge of the table was padded.
The part touches the edge of its tray.
The edge of the part was deburred.
The rim was polished by the supplier.
The hole in the middle of the part is meant to be there.
The four bolt holes are as drawn.
Without holes the part would not cool.
The part has no holes according to revision C.
Its cause is not known.
Its origin is unclear.
Its severity has to be judged by a person.
Its position on the drawing has not been recorded.
Its size will be measured again with a calliper.
Its colour depends on the light.
Its shape does not matter for the function.
The left side of the hall is too dark for inspection.
The upper lamp is brighter than the lower one.
The camera on the right was out of focus.
The picture on the left shows a normal part.
The frame was drawn by software and is no defect.
The magenta frame is larger than what it marks.
The heat map is brightest somewhere else.
Which of the two is older cannot be said.
"""


def auditor_sentences() -> list[str]:
    return [line for line in AUDITOR_SENTENCES.strip().splitlines() if line]
